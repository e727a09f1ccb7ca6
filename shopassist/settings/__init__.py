"""All settings, read from the environment and a `.env` file. Each group is immutable."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from shopassist.errors import StartupError
from shopassist.settings.database import BackupSettings, DatabaseConfig
from shopassist.settings.group import SettingsGroup, load_settings


class IdentitySettings(SettingsGroup):
    """The OpenID Connect issuer that the server trusts, under its own names or Auth0's, and the server's secret key."""

    oidc_issuer: str | None = Field(default=None, alias="OIDC_ISSUER")
    oidc_audience: str | None = Field(default=None, alias="OIDC_AUDIENCE")
    domain: str | None = Field(default=None, alias="AUTH0_DOMAIN")
    auth0_audience: str | None = Field(default=None, alias="AUTH0_API_AUDIENCE")
    auth0_issuer: str | None = Field(default=None, alias="AUTH0_ISSUER")
    admin_scope: str = Field(default="shopassist:admin", alias="ADMIN_SCOPE")
    secret_key: SecretStr | None = Field(
        default=None,
        alias="SECRET_KEY",
        min_length=32,
        description="signs sessions and hashes user ids; the same for all servers of one database",
    )

    @property
    def issuer(self) -> str | None:
        """Return the issuer with a trailing slash, or None if no identity provider is set."""
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        issuer = self.oidc_issuer or auth0
        return f"{issuer.rstrip('/')}/" if issuer else None

    @property
    def issuer_names(self) -> tuple[str, ...]:
        """Return the accepted `iss` values: Auth0 writes the trailing slash, other issuers may not."""
        if self.issuer is None:
            return ()
        return (self.issuer, self.issuer.rstrip("/")) if self.oidc_issuer else (self.issuer,)

    @property
    def audience(self) -> str | None:
        """Return the audience that a token must name."""
        return self.oidc_audience or self.auth0_audience

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        pairs = (
            ("OIDC_ISSUER", self.oidc_issuer, "AUTH0_ISSUER or AUTH0_DOMAIN", auth0),
            ("OIDC_AUDIENCE", self.oidc_audience, "AUTH0_API_AUDIENCE", self.auth0_audience),
        )
        for name, value, other, other_value in pairs:
            if value and other_value and value.rstrip("/") != other_value.rstrip("/"):
                raise ValueError(f"{name} and {other} name different things: set one of them")
        return self


class GuestSessionKind(StrEnum):
    """Which session ids are accepted: any, or only those that this server signed."""

    ANY = "any"
    SIGNED = "signed"


class GuestSettings(SettingsGroup):
    """Limits for guests, and which session ids they may use."""

    accounts_per_network: int = Field(
        default=50,
        ge=0,
        le=1_000_000,
        alias="GUEST_ACCOUNTS_PER_NETWORK_PER_DAY",
        description="new guest accounts of one client network in a day (UTC)",
    )
    sessions: GuestSessionKind = Field(default=GuestSessionKind.ANY, alias="GUEST_SESSIONS")

    @property
    def only_signed(self) -> bool:
        """Return whether only session ids that this server signed are accepted."""
        return self.sessions is GuestSessionKind.SIGNED


class LimitSettings(SettingsGroup):
    """Rate limits of one caller and of one network. Each process counts separately."""

    questions_per_minute: PositiveInt = Field(default=30, alias="RATE_LIMIT_QUESTIONS_PER_MINUTE")
    reads_per_minute: PositiveInt = Field(default=300, alias="RATE_LIMIT_READS_PER_MINUTE")
    network_factor: PositiveInt = Field(
        default=20, alias="RATE_LIMIT_NETWORK_FACTOR", description="limit of a network as a multiple of a caller's"
    )


WORKER = "SHOPASSIST_WORKER"
"""Set by `serve` for its worker processes, which end with it: the folder that they share."""


class ServerSettings(SettingsGroup):
    """The HTTP server."""

    host: str = Field(default="127.0.0.1", alias="API_HOST")
    port: int = Field(default=8000, ge=0, le=65535, alias="API_PORT")
    workers: PositiveInt = Field(default=1, alias="WORKERS")
    debug: bool = Field(default=False, alias="DEBUG")
    log_level: str = Field(default="info", alias="LOG_LEVEL")
    environment: str = Field(default="development", alias="ENVIRONMENT")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(default=("*",), alias="ALLOWED_HOSTS")
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        default=(), alias="TRUSTED_PROXIES", description="networks (CIDR) of proxies with trusted forwarding headers"
    )
    frontend_url: str | None = Field(default=None, alias="FRONTEND_URL")

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def production(self) -> bool:
        """Return whether this is a production deployment."""
        return self.environment.lower() in {"production", "prod"}

    @property
    def origins(self) -> list[str]:
        """Return the origins that may call the API from a browser."""
        local = ["http://localhost:5173", "http://localhost:3000"]
        return [*local, *([self.frontend_url.rstrip("/")] if self.frontend_url else [])]


def http_address(host: str, port: int) -> str:
    """Return the URL of a server; IPv6 addresses go in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Storage(StrEnum):
    """Where state is stored. `rollout`: in memory, and for a share of users in PostgreSQL (`docs/rollout.md`)."""

    POSTGRES = "postgres"
    MEMORY = "memory"
    ROLLOUT = "rollout"


class StorageSettings(SettingsGroup):
    """Which storage is used, or both."""

    storage: Storage = Field(default=Storage.POSTGRES, alias="STORAGE")
    rollout_percent: float = Field(
        default=0, ge=0, le=100, allow_inf_nan=False, alias="ROLLOUT_PERCENT", description="of users, in PostgreSQL"
    )
    rollout_shadow: bool = Field(default=False, alias="ROLLOUT_SHADOW", description="calls both storages and compares")

    @property
    def is_one_process(self) -> bool:
        """Return whether state is in the memory of the serving process."""
        return self.storage is not Storage.POSTGRES

    @property
    def has_database(self) -> bool:
        """Return whether PostgreSQL is used."""
        return self.storage is not Storage.MEMORY


class CreditSettings(SettingsGroup):
    """Credit allowances, resets and retention."""

    max_guest_credits: PositiveInt = Field(default=10, alias="MAX_GUEST_CREDITS")
    max_registered_credits: PositiveInt = Field(default=50, alias="MAX_REGISTERED_CREDITS")
    reset_interval_hours: float = Field(default=24, gt=0, alias="CREDIT_RESET_INTERVAL_HOURS")
    hold_lifetime_seconds: PositiveInt = Field(default=60, alias="CREDIT_HOLD_TTL_SECONDS")
    retention_days: int = Field(default=90, ge=1, le=36500, alias="TRANSACTION_RETENTION_DAYS")

    @property
    def reset_interval(self) -> timedelta:
        """Return the time between two resets of a registered user."""
        return timedelta(hours=self.reset_interval_hours)

    @property
    def hold_lifetime(self) -> timedelta:
        """Return how long a credit is held for work in progress."""
        return timedelta(seconds=self.hold_lifetime_seconds)


class CacheSettings(SettingsGroup):
    """The query cache."""

    validity_minutes: float = Field(default=60, gt=0, alias="CACHE_VALIDITY_MINUTES")
    stale_answers: int = Field(
        default=10_000, ge=0, alias="STALE_ANSWERS", description="per process, for when the database is unavailable"
    )
    stale_bytes: PositiveInt = Field(
        default=64 * 2**20, alias="STALE_ANSWERS_BYTES", description="limit of their size in each process"
    )
    stale_hours: float = Field(
        default=24, gt=0, le=24, alias="STALE_ANSWERS_HOURS", description="how old one may be when it is served"
    )

    redis_url: SecretStr | None = Field(
        default=None, alias="REDIS_URL", description="`redis://` or `rediss://`: where instances share answers"
    )

    @property
    def validity(self) -> timedelta:
        """Return how long an answer is served."""
        return timedelta(minutes=self.validity_minutes)

    @property
    def stale_lifetime(self) -> timedelta:
        """Return the maximum age of an answer that is served while the database is unavailable."""
        return timedelta(hours=self.stale_hours)


class ConsentSettings(SettingsGroup):
    """Whether questions need consent, and the grace period of a new version of the terms."""

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
    """Retention of the list of erasures."""

    erasure_list_days: int = Field(
        default=365,
        ge=1,
        le=36500,
        alias="ERASURE_LIST_DAYS",
        description="how long the list of erasures is kept; no backup that is older may be restored",
    )

    @property
    def erasure_list_lifetime(self) -> timedelta:
        """Return how long an erasure stays on the list."""
        return timedelta(days=self.erasure_list_days)


class AssistantSettings(SettingsGroup):
    """The assistant and its affiliate links."""

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


class TelemetrySettings(SettingsGroup):
    """Metrics and traces."""

    metrics_token: SecretStr | None = Field(
        default=None,
        alias="METRICS_TOKEN",
        min_length=16,
        description="bearer token of Prometheus; if unset, only private networks may read",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="where traces are sent by OTLP over HTTP; if unset, there are none",
    )
    service_name: str = Field(default="shopassist", alias="OTEL_SERVICE_NAME", description="in traces")


class AdministrationSettings(SettingsGroup):
    """Settings of commands that call the running server (`shopassist rollout`). The server does not read them."""

    url: str | None = Field(
        default=None,
        alias="SHOPASSIST_URL",
        pattern="^https?://",
        description="of the server; default: API_HOST and API_PORT on this machine",
    )
    token: SecretStr | None = Field(
        default=None,
        alias="ADMIN_TOKEN",
        description="an administrator's access token; not needed with the embedded database",
    )


REDIS_SCHEMES = ("redis://", "rediss://")


class Settings(BaseModel):
    """All groups. `Settings()` reads the environment; tests pass the groups that they change."""

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
    def _check_hold_lifetime(self) -> Self:
        if self.credits.hold_lifetime_seconds <= self.assistant.timeout_seconds:
            raise ValueError(
                f"CREDIT_HOLD_TTL_SECONDS ({self.credits.hold_lifetime_seconds:g}) must be above "
                f"QUERY_TIMEOUT_SECONDS ({self.assistant.timeout_seconds:g}), or a credit comes back before its answer"
            )
        return self

    @model_validator(mode="after")
    def _check_rollout_start(self) -> Self:
        if self.storage.storage is Storage.ROLLOUT and self.database.start_degraded:
            raise ValueError(
                "START_DEGRADED must not be set with STORAGE=rollout: without the database it is not known who was "
                "moved there, and they would begin anew in memory"
            )
        return self

    @model_validator(mode="after")
    def _check_issuer(self) -> Self:
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
        """Return whether an empty catalogue is filled with the sample."""
        wanted = self.assistant.sample_catalogue
        return not self.server.production if wanted is None else wanted

    @property
    def shared_cache_url(self) -> SecretStr | None:
        """Return the URL of the shared cache; only PostgreSQL storage has one."""
        return self.cache.redis_url if self.storage.storage is Storage.POSTGRES else None

    def with_embedded(self, url: str) -> Self:
        """Return the same settings with the embedded database at `url`."""
        database = self.database.model_copy(update={"database_url": SecretStr(url), "ssl_mode": None})
        return self.model_copy(update={"database": database, "embedded_database": True})


def read_settings() -> Settings:
    """Return the settings of the environment. Raises `StartupError` that names the variable."""
    settings = load_settings(Settings)
    url = settings.shared_cache_url
    if url is not None and not url.get_secret_value().startswith(REDIS_SCHEMES):
        raise StartupError(f"REDIS_URL must begin with {' or '.join(REDIS_SCHEMES)}.")
    return settings
