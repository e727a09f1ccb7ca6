"""Settings: the one place that reads the environment (and a `.env` file).

Each group is frozen.
"""

from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from shopassist.settings.administration import AdministrationSettings
from shopassist.settings.assistant import AssistantSettings
from shopassist.settings.backup import BackupSettings
from shopassist.settings.cache import CacheSettings
from shopassist.settings.consent import ConsentSettings
from shopassist.settings.credits import CreditSettings
from shopassist.settings.database import DatabaseConfig, PoolMode, ProvisioningSettings, SslMode
from shopassist.settings.guests import GuestSessionKind, GuestSettings
from shopassist.settings.identity import IdentitySettings
from shopassist.settings.limits import LimitSettings
from shopassist.settings.privacy import PrivacySettings
from shopassist.settings.server import WORKER, ServerSettings, http_address
from shopassist.settings.storage import Storage, StorageSettings
from shopassist.settings.telemetry import TelemetrySettings

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
