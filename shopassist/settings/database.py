"""Settings of the database connection, its roles and its backups."""

import os
from enum import StrEnum
from pathlib import Path

from pydantic import Field, PositiveInt, SecretStr

from shopassist.settings.group import SettingsGroup

PROJECT_FOLDER = Path(__file__).resolve().parents[2]


def get_default_data_folder() -> Path:
    """Return `.data` in a source checkout, else `shopassist` in the user's data folder (XDG base directories)."""
    if (PROJECT_FOLDER / "pyproject.toml").exists():
        return PROJECT_FOLDER / ".data"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "shopassist"


class PoolMode(StrEnum):
    """Whether a connection keeps its server session, or a pooler gives it one per transaction."""

    SESSION = "session"
    TRANSACTION = "transaction"


class SslMode(StrEnum):
    """libpq's TLS modes."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


class DatabaseConfig(SettingsGroup):
    """The connection to PostgreSQL. Without a URL the embedded server is used."""

    database_url: SecretStr | None = Field(
        default=None, alias="DATABASE_URL", description="with several hosts, the one that can be written to is used"
    )
    migration_url: SecretStr | None = Field(
        default=None,
        alias="DATABASE_MIGRATION_URL",
        description="the owner's link, for migrations; bypasses any pooler",
    )
    direct_url: SecretStr | None = Field(
        default=None,
        alias="DATABASE_DIRECT_URL",
        description="bypasses a pooler, for what needs a session: migrations and their lock",
    )
    replica_url: SecretStr | None = Field(
        default=None, alias="DATABASE_REPLICA_URL", description="a standby, for reads that may lag"
    )
    replica_max_lag: float = Field(
        default=5,
        ge=1,
        alias="REPLICA_MAX_LAG_SECONDS",
        description="seconds; a replica with more lag is not read from while the primary is available",
    )
    pool_mode: PoolMode = Field(
        default=PoolMode.SESSION, alias="DB_POOL_MODE", description="`transaction` behind PgBouncer in that mode"
    )
    ssl_mode: SslMode | None = Field(default=None, alias="DB_SSL_MODE", description="for every link without `sslmode=`")
    ssl_root_cert: str | None = Field(
        default=None,
        alias="DB_SSL_ROOT_CERT",
        description="file with the certificate authorities of the database, or `system`",
    )
    privileged_role: bool = Field(
        default=False,
        alias="DB_ALLOW_PRIVILEGED_ROLE",
        description="whether production may run as the owner of the tables or as a superuser",
    )
    pool_size: PositiveInt = Field(default=10, alias="DB_POOL_SIZE")
    max_overflow: int = Field(default=20, ge=0, alias="DB_MAX_OVERFLOW")
    pool_timeout: float = Field(default=30, gt=0, alias="DB_POOL_TIMEOUT", description="seconds")
    pool_recycle: int = Field(default=3600, alias="DB_POOL_RECYCLE", description="seconds, -1 for never")
    echo_sql: bool = Field(default=False, alias="DB_ECHO_SQL", description="statements without their parameters")
    connect_timeout: float = Field(default=5, gt=0, alias="DB_CONNECT_TIMEOUT", description="seconds")
    statement_timeout: float = Field(default=30, gt=0, alias="DB_STATEMENT_TIMEOUT", description="seconds")
    lock_timeout: float = Field(default=1.5, gt=0, alias="DB_LOCK_TIMEOUT", description="seconds")
    idle_transaction_timeout: float = Field(
        default=60, gt=0, alias="DB_IDLE_TRANSACTION_TIMEOUT", description="seconds"
    )
    retry_attempts: PositiveInt = Field(default=3, alias="DB_RETRY_ATTEMPTS", description="the first one counts")
    retry_timeout: float = Field(default=2, gt=0, alias="DB_RETRY_TIMEOUT", description="seconds for all of them")
    hot_timeout: float = Field(
        default=0.8,
        gt=0,
        alias="DB_HOT_TIMEOUT",
        description="seconds a debit, hold, settlement or read by key may take",
    )
    start_degraded: bool = Field(
        default=False,
        alias="START_DEGRADED",
        description="whether to start without the database, and to prepare it as soon as it appears",
    )
    fatal_after_seconds: float | None = Field(
        default=None,
        gt=0,
        alias="DB_FATAL_AFTER_SECONDS",
        description="how long the database may be unavailable before the process exits; default: no limit",
    )
    data_folder: Path = Field(
        default_factory=get_default_data_folder,
        alias="SHOPASSIST_DATA",
        description="of the embedded server and of local keys",
    )


class ProvisioningSettings(SettingsGroup):
    """The roles that `shopassist db provision` creates. The server does not read these settings."""

    admin_url: SecretStr | None = Field(
        default=None, alias="DATABASE_ADMIN_URL", description="an administrator's link to the product's database"
    )
    owner_role: str = Field(default="shopassist_owner", alias="DB_OWNER_ROLE", min_length=1, max_length=63)
    owner_password: SecretStr | None = Field(default=None, alias="DB_OWNER_PASSWORD")
    app_role: str = Field(default="shopassist_app", alias="DB_APP_ROLE", min_length=1, max_length=63)
    app_password: SecretStr | None = Field(default=None, alias="DB_APP_PASSWORD")
    read_role: str = Field(default="shopassist_read", alias="DB_READ_ROLE", min_length=1, max_length=63)
    read_password: SecretStr | None = Field(default=None, alias="DB_READ_PASSWORD")


class BackupSettings(SettingsGroup):
    """Backups of the database."""

    folder: Path | None = Field(
        default=None, alias="BACKUP_FOLDER", description="default: `backups` in SHOPASSIST_DATA"
    )
    keep: PositiveInt = Field(default=7, alias="BACKUP_KEEP", description="how many; older ones are removed")
    recipient: str | None = Field(
        default=None, alias="BACKUP_RECIPIENT", description="public key (age1…) that backups are encrypted for"
    )
    identity: SecretStr | None = Field(
        default=None, alias="BACKUP_IDENTITY", description="private key (AGE-SECRET-KEY-…), to verify and to restore"
    )
    longest_age_hours: float = Field(
        default=26, gt=0, alias="BACKUP_MAX_AGE_HOURS", description="past which `shopassist doctor` complains"
    )
    before_migration: bool = Field(
        default=False, alias="BACKUP_BEFORE_MIGRATION", description="whether to back up before a start migrates"
    )
