"""All settings, read from the environment and a `.env` file. Each group is immutable."""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SecretStr, model_validator

from shopassist.settings.database import DatabaseConfig
from shopassist.settings.group import SettingsGroup
from shopassist.settings.server import GuestSettings, IdentitySettings, LimitSettings, ServerSettings


class Storage(StrEnum):
    """Where state is kept. `rollout`: in memory, and of a share of users in PostgreSQL (`docs/rollout.md`)."""

    POSTGRES = "postgres"
    MEMORY = "memory"
    ROLLOUT = "rollout"


class StorageSettings(SettingsGroup):
    """Which twin keeps the state, or both."""

    storage: Storage = Field(default=Storage.POSTGRES, alias="STORAGE")
    rollout_percent: float = Field(
        default=0, ge=0, le=100, allow_inf_nan=False, alias="ROLLOUT_PERCENT", description="of users, in PostgreSQL"
    )
    rollout_shadow: bool = Field(default=False, alias="ROLLOUT_SHADOW", description="asks both sides and compares")

    @property
    def is_one_process(self) -> bool:
        """Whether state is in the memory of the process that serves."""
        return self.storage is not Storage.POSTGRES

    @property
    def has_database(self) -> bool:
        """Whether state is in PostgreSQL, or may be."""
        return self.storage is not Storage.MEMORY


class CreditSettings(SettingsGroup):
    """How many credits there are and when they come back."""

    max_guest_credits: PositiveInt = Field(default=10, alias="MAX_GUEST_CREDITS")
    max_registered_credits: PositiveInt = Field(default=50, alias="MAX_REGISTERED_CREDITS")
    reset_interval_hours: float = Field(default=24, gt=0, alias="CREDIT_RESET_INTERVAL_HOURS")
    hold_lifetime_seconds: PositiveInt = Field(default=60, alias="CREDIT_HOLD_TTL_SECONDS")
    retention_days: int = Field(default=90, ge=1, le=36500, alias="TRANSACTION_RETENTION_DAYS")

    @property
    def reset_interval(self) -> timedelta:
        """How long a registered user's period is."""
        return timedelta(hours=self.reset_interval_hours)

    @property
    def hold_lifetime(self) -> timedelta:
        """How long a credit is held for work in progress at the most."""
        return timedelta(seconds=self.hold_lifetime_seconds)


class CacheSettings(SettingsGroup):
    """The query cache."""

    validity_minutes: float = Field(default=60, gt=0, alias="CACHE_VALIDITY_MINUTES")
    stale_answers: int = Field(
        default=10_000, ge=0, alias="STALE_ANSWERS", description="kept by each process for a database that is away"
    )
    stale_bytes: PositiveInt = Field(
        default=64 * 2**20, alias="STALE_ANSWERS_BYTES", description="that they take in each process at the most"
    )
    stale_hours: float = Field(
        default=24, gt=0, le=24, alias="STALE_ANSWERS_HOURS", description="how old one may be when it is served"
    )

    redis_url: SecretStr | None = Field(
        default=None, alias="REDIS_URL", description="`redis://` or `rediss://`: where instances share answers"
    )

    @property
    def validity(self) -> timedelta:
        """How long an answer is served."""
        return timedelta(minutes=self.validity_minutes)

    @property
    def stale_lifetime(self) -> timedelta:
        """How old an answer may be that is served while the database is away."""
        return timedelta(hours=self.stale_hours)


class ConsentSettings(SettingsGroup):
    """Whether questions wait for an agreement, and how long a new version may be put off."""

    required: bool = Field(
        default=False,
        alias="CONSENT_REQUIRED",
        description="whether a question is answered only to those who agreed to the published terms",
    )
    grace_hours: float = Field(
        default=72,
        ge=0,
        le=8784,
        alias="CONSENT_GRACE_HOURS",
        description="how long an agreement to the version before a new one still does, unless its publisher says",
    )


class PrivacySettings(SettingsGroup):
    """What stays known of people who were erased."""

    erasure_list_days: int = Field(
        default=365,
        ge=1,
        le=36500,
        alias="ERASURE_LIST_DAYS",
        description="how long the list of erasures is kept; no backup that is older may be restored",
    )

    @property
    def erasure_list_lifetime(self) -> timedelta:
        """How long an erasure stays on the list."""
        return timedelta(days=self.erasure_list_days)


class AssistantSettings(SettingsGroup):
    """How questions are answered and links are marked."""

    affiliate_tag: str | None = Field(default=None, alias="AFFILIATE_TAG")
    affiliate_program: str = Field(default="amazon", alias="AFFILIATE_PROGRAM")
    market_currency: str = Field(default="INR", pattern="^[A-Z]{3}$", alias="MARKET_CURRENCY", description="ISO 4217")
    timeout_seconds: float = Field(default=30, gt=0, alias="QUERY_TIMEOUT_SECONDS")
    sample_catalogue: bool | None = Field(
        default=None,
        alias="SAMPLE_CATALOGUE",
        description="whether an empty catalogue is filled with the sample; unless said, outside production",
    )
    gemini_api_key: SecretStr | None = Field(default=None, alias="GEMINI_API_KEY")


class BackupSettings(SettingsGroup):
    """Backups of the database."""

    folder: Path | None = Field(
        default=None, alias="BACKUP_FOLDER", description="unless said, `backups` in SHOPASSIST_DATA"
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


class TelemetrySettings(SettingsGroup):
    """What the server shows of itself, and to whom."""

    metrics_token: SecretStr | None = Field(
        default=None,
        alias="METRICS_TOKEN",
        min_length=16,
        description="what Prometheus shows as its bearer token; without it only who is on a private network may read",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="where traces are sent, by OTLP over HTTP; without it there are none",
    )
    service_name: str = Field(default="shopassist", alias="OTEL_SERVICE_NAME", description="in traces")


class AdministrationSettings(SettingsGroup):
    """What commands need that speak to the running server (`shopassist rollout`); the server never reads this."""

    url: str | None = Field(
        default=None,
        alias="SHOPASSIST_URL",
        pattern="^https?://",
        description="of the server; unless said, API_HOST and API_PORT on this machine",
    )
    token: SecretStr | None = Field(
        default=None,
        alias="ADMIN_TOKEN",
        description="an administrator's access token; needless on the embedded database, whose tokens are made here",
    )


__all__ = [
    "WORKER",
    "AdministrationSettings",
    "AssistantSettings",
    "BackupSettings",
    "CacheSettings",
    "ConsentSettings",
    "CreditSettings",
    "DatabaseConfig",
    "GuestSessionKind",
    "GuestSettings",
    "IdentitySettings",
    "LimitSettings",
    "PoolMode",
    "PrivacySettings",
    "ProvisioningSettings",
    "ServerSettings",
    "Settings",
    "SslMode",
    "Storage",
    "StorageSettings",
    "TelemetrySettings",
    "http_address",
]


class Settings(BaseModel):
    """All groups. `Settings()` reads the environment; tests pass the groups they care about."""

    model_config = ConfigDict(frozen=True)

    database: DatabaseConfig = Field(default_factory=DatabaseConfig)
    credits: CreditSettings = Field(default_factory=CreditSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    consent: ConsentSettings = Field(default_factory=ConsentSettings)
    identity: IdentitySettings = Field(default_factory=IdentitySettings)
    guests: GuestSettings = Field(default_factory=GuestSettings)
    limits: LimitSettings = Field(default_factory=LimitSettings)
    privacy: PrivacySettings = Field(default_factory=PrivacySettings)
    assistant: AssistantSettings = Field(default_factory=AssistantSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    backup: BackupSettings = Field(default_factory=BackupSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    embedded_database: bool = False

    @model_validator(mode="after")
    def _holds_outlive_work(self) -> Self:
        if self.credits.hold_lifetime_seconds <= self.assistant.timeout_seconds:
            raise ValueError(
                f"CREDIT_HOLD_TTL_SECONDS ({self.credits.hold_lifetime_seconds:g}) must be above "
                f"QUERY_TIMEOUT_SECONDS ({self.assistant.timeout_seconds:g}), or a credit comes back before its answer"
            )
        return self

    @model_validator(mode="after")
    def _a_rollout_knows_who_was_moved(self) -> Self:
        if self.storage.storage is Storage.ROLLOUT and self.database.start_degraded:
            raise ValueError(
                "START_DEGRADED must not be set with STORAGE=rollout: without the database it is not known who was "
                "moved there, and they would begin anew in memory"
            )
        return self

    @model_validator(mode="after")
    def _issuer_can_be_believed(self) -> Self:
        if self.identity.issuer is None:
            return self
        issuer = urlsplit(self.identity.issuer)
        if issuer.scheme != "https" and issuer.hostname not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("OIDC_ISSUER must begin with https://, or its keys could be anybody's")
        if not self.identity.audience:
            raise ValueError(
                "OIDC_AUDIENCE is not set: tokens are believed only when they name it, so that those which the issuer "
                "makes for other services are refused"
            )
        return self

    @property
    def max_stale_answers(self) -> int:
        """How many answers are kept for a database outage; memory has none."""
        return 0 if self.storage.storage is Storage.MEMORY else self.cache.stale_answers

    @property
    def fatal_after_seconds(self) -> float | None:
        """After how long without the database the process ends; never in a rollout, which serves from memory."""
        return None if self.storage.storage is Storage.ROLLOUT else self.database.fatal_after_seconds

    @property
    def fill_with_sample(self) -> bool:
        """Whether an empty catalogue is filled with the sample."""
        wanted = self.assistant.sample_catalogue
        return not self.server.production if wanted is None else wanted

    @property
    def shared_cache_url(self) -> SecretStr | None:
        """Where instances share answers; the memory of one process is nothing to share."""
        return self.cache.redis_url if self.storage.storage is Storage.POSTGRES else None

    def with_embedded(self, url: str) -> Self:
        """The same settings on the embedded database, which is at `url`."""
        database = self.database.model_copy(update={"database_url": SecretStr(url), "ssl_mode": None})
        return self.model_copy(update={"database": database, "embedded_database": True})
