"""Settings of the database connection, its roles and its backups."""

import os
from enum import StrEnum
from pathlib import Path

from pydantic import Field, PositiveInt, SecretStr

from shopassist.settings.group import SettingsGroup
from shopassist.settings.values import FolderPath

PROJECT_FOLDER = Path(__file__).resolve().parents[2]


def choose_data_folder() -> Path:
    """Return `.data` in a source checkout, else `shopassist` in the user's data folder (XDG base directories)."""
    if (PROJECT_FOLDER / "pyproject.toml").exists():
        return PROJECT_FOLDER / ".data"
    given = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(given) if given else Path.home() / ".local" / "share") / "shopassist"
    except RuntimeError:  # a user without a name has no home
        return Path("/var/lib/shopassist")


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
        None, alias="DATABASE_URL", description="with several hosts, the one that can be written to is used"
    )
    migration_url: SecretStr | None = Field(
        None, alias="DATABASE_MIGRATION_URL", description="the owner's link, for migrations; bypasses any pooler"
    )
    direct_url: SecretStr | None = Field(
        None, alias="DATABASE_DIRECT_URL", description="bypasses a pooler, for migrations and their lock"
    )
    replica_url: SecretStr | None = Field(
        None, alias="DATABASE_REPLICA_URL", description="a standby, for reads that may lag"
    )
    replica_max_lag: float = Field(
        5, ge=1, alias="REPLICA_MAX_LAG_SECONDS", description="with more lag, the primary is read while available"
    )
    pool_mode: PoolMode = Field(
        PoolMode.SESSION, alias="DB_POOL_MODE", description="`transaction` behind PgBouncer in that mode"
    )
    ssl_mode: SslMode | None = Field(None, alias="DB_SSL_MODE", description="for every link without `sslmode=`")
    ssl_root_cert: str | None = Field(
        None, alias="DB_SSL_ROOT_CERT", description="file with the certificate authorities of the database, or `system`"
    )
    privileged_role: bool = Field(
        False, alias="DB_ALLOW_PRIVILEGED_ROLE", description="whether the owner or a superuser may run production"
    )
    pool_size: PositiveInt = Field(10, alias="DB_POOL_SIZE")
    max_overflow: int = Field(20, ge=0, alias="DB_MAX_OVERFLOW")
    pool_timeout: float = Field(30, gt=0, alias="DB_POOL_TIMEOUT", description="seconds")
    pool_recycle: int = Field(3600, alias="DB_POOL_RECYCLE", description="seconds, -1 for never")
    echo_sql: bool = Field(False, alias="DB_ECHO_SQL", description="statements without their parameters")
    connect_timeout: float = Field(5, gt=0, alias="DB_CONNECT_TIMEOUT", description="seconds")
    statement_timeout: float = Field(30, gt=0, alias="DB_STATEMENT_TIMEOUT", description="seconds")
    lock_timeout: float = Field(1.5, gt=0, alias="DB_LOCK_TIMEOUT", description="seconds")
    idle_transaction_timeout: float = Field(60, gt=0, alias="DB_IDLE_TRANSACTION_TIMEOUT", description="seconds")
    retry_attempts: PositiveInt = Field(3, alias="DB_RETRY_ATTEMPTS", description="the first one counts")
    retry_timeout: float = Field(2, gt=0, alias="DB_RETRY_TIMEOUT", description="seconds for all of them")
    hot_timeout: float = Field(
        0.8, gt=0, alias="DB_HOT_TIMEOUT", description="seconds a debit, hold, settlement or read by key may take"
    )
    start_degraded: bool = Field(
        False, alias="START_DEGRADED", description="whether to start without the database, and prepare it later"
    )
    fatal_after_seconds: float | None = Field(
        None, gt=0, alias="DB_FATAL_AFTER_SECONDS", description="after this outage the process exits"
    )
    data_folder: FolderPath = Field(
        default_factory=choose_data_folder, alias="SHOPASSIST_DATA", description="embedded server and local keys"
    )


class ProvisioningSettings(SettingsGroup):
    """The roles that `shopassist db provision` creates. The server does not read these settings."""

    admin_url: SecretStr | None = Field(
        None, alias="DATABASE_ADMIN_URL", description="an administrator's link to the product's database"
    )
    owner_role: str = Field("shopassist_owner", alias="DB_OWNER_ROLE", min_length=1, max_length=63)
    owner_password: SecretStr | None = Field(None, alias="DB_OWNER_PASSWORD")
    app_role: str = Field("shopassist_app", alias="DB_APP_ROLE", min_length=1, max_length=63)
    app_password: SecretStr | None = Field(None, alias="DB_APP_PASSWORD")
    read_role: str = Field("shopassist_read", alias="DB_READ_ROLE", min_length=1, max_length=63)
    read_password: SecretStr | None = Field(None, alias="DB_READ_PASSWORD")


class BackupSettings(SettingsGroup):
    """Backups of the database."""

    folder: FolderPath | None = Field(None, alias="BACKUP_FOLDER", description="default: `backups` in SHOPASSIST_DATA")
    keep: PositiveInt = Field(7, alias="BACKUP_KEEP", description="how many; older ones are removed")
    recipient: str | None = Field(
        None, alias="BACKUP_RECIPIENT", description="public key (age1…) that backups are encrypted for"
    )
    identity: SecretStr | None = Field(
        None, alias="BACKUP_IDENTITY", description="private key (AGE-SECRET-KEY-…), to verify and to restore"
    )
    longest_age_hours: float = Field(
        26, gt=0, alias="BACKUP_MAX_AGE_HOURS", description="past which `shopassist doctor` complains"
    )
    before_migration: bool = Field(
        False, alias="BACKUP_BEFORE_MIGRATION", description="whether to back up before a start migrates"
    )
