"""All settings, read from the environment and a `.env` file. Each group is immutable."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
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
from shopassist.settings.values import (
    DEFAULT_API_PORT,
    AllowedHosts,
    Environment,
    LogLevel,
    Named,
    Origins,
    Port,
    check_key,
    split_list,
)


class IdentitySettings(SettingsGroup):
    """The OpenID Connect issuer that the server trusts, under its own names or Auth0's, and the server's secret key."""

    oidc_issuer: str | None = Field(None, alias="OIDC_ISSUER")
    oidc_audience: str | None = Field(None, alias="OIDC_AUDIENCE")
    domain: str | None = Field(None, alias="AUTH0_DOMAIN")
    auth0_audience: str | None = Field(None, alias="AUTH0_API_AUDIENCE")
    auth0_issuer: str | None = Field(None, alias="AUTH0_ISSUER")
    admin_scope: str = Field("shopassist:admin", alias="ADMIN_SCOPE")
    secret_key: SecretStr | None = Field(
        None, alias="SECRET_KEY", description="signs sessions and hashes user ids; one for all servers"
    )

    @field_validator("secret_key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(check_key(key.get_secret_value()))

    @property
    def issuer(self) -> str | None:
        """Return the issuer with a trailing slash, or None if no identity provider is set."""
        issuer = self.oidc_issuer or self._auth0
        return f"{issuer.rstrip('/')}/" if issuer else None

    @property
    def _auth0(self) -> str | None:
        return self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)

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
        pairs = (
            ("OIDC_ISSUER", self.oidc_issuer, "AUTH0_ISSUER or AUTH0_DOMAIN", self._auth0),
            ("OIDC_AUDIENCE", self.oidc_audience, "AUTH0_API_AUDIENCE", self.auth0_audience),
        )
        for name, value, other, other_value in pairs:
            if value and other_value and value.rstrip("/") != other_value.rstrip("/"):
                raise ValueError(f"{name} and {other} name different things: set one of them")
        return self


class GuestSettings(SettingsGroup):
    """Limits for guests, and which session ids they may use: any, or only those that this server signed."""

    accounts_per_network: int = Field(
        1000, ge=0, le=1_000_000, alias="GUEST_ACCOUNTS_PER_NETWORK_PER_DAY", description="new ones in a day (UTC)"
    )
    sessions: Literal["any", "signed"] = Field("any", alias="GUEST_SESSIONS")

    @property
    def only_signed(self) -> bool:
        """Return whether only session ids that this server signed are accepted."""
        return self.sessions == "signed"


class LimitSettings(SettingsGroup):
    """Rate limits of one caller and of one network. Each process counts separately."""

    questions_per_minute: PositiveInt = Field(30, alias="RATE_LIMIT_QUESTIONS_PER_MINUTE")
    reads_per_minute: PositiveInt = Field(300, alias="RATE_LIMIT_READS_PER_MINUTE")
    network_factor: PositiveInt = Field(
        20, alias="RATE_LIMIT_NETWORK_FACTOR", description="limit of a network as a multiple of a caller's"
    )


WORKER = "SHOPASSIST_WORKER"
"""Set by `serve` for its worker processes, which end with it: the folder that they share."""


class ServerSettings(SettingsGroup):
    """The HTTP server."""

    host: str = Field("127.0.0.1", alias="API_HOST")
    port: Port = Field(DEFAULT_API_PORT, alias="API_PORT")
    workers: PositiveInt = Field(1, alias="WORKERS")
    keep_alive_seconds: PositiveInt = Field(
        75, alias="KEEP_ALIVE_SECONDS", description="how long an idle connection is kept; longer than a proxy keeps it"
    )
    debug: bool = Field(False, alias="DEBUG")
    log_level: Annotated[LogLevel, Named] = Field(LogLevel.INFO, alias="LOG_LEVEL")
    environment: Annotated[Environment, Named] = Field(Environment.DEVELOPMENT, alias="ENVIRONMENT")
    allowed_hosts: AllowedHosts = Field(("*",), alias="ALLOWED_HOSTS")
    trusted_proxies: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(split_list)] = Field(
        (), alias="TRUSTED_PROXIES", description="networks (CIDR) of proxies with trusted forwarding headers"
    )
    frontend_url: Origins = Field((), alias="FRONTEND_URL", description="origins that may call the API from a browser")

    @property
    def production(self) -> bool:
        """Return whether this is a production deployment."""
        return self.environment is Environment.PRODUCTION

    @property
    def origins(self) -> list[str]:
        """Return the origins that may call the API from a browser."""
        local = ["http://localhost:5173", "http://localhost:3000"]
        return [*local, *self.frontend_url]


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

    storage: Storage = Field(Storage.POSTGRES, alias="STORAGE")
    rollout_percent: float = Field(
        0, ge=0, le=100, allow_inf_nan=False, alias="ROLLOUT_PERCENT", description="of users, in PostgreSQL"
    )
    rollout_shadow: bool = Field(False, alias="ROLLOUT_SHADOW", description="calls both storages and compares")

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

    max_guest_credits: int = Field(10, ge=1, le=2**31 - 1, alias="MAX_GUEST_CREDITS")
    max_registered_credits: int = Field(50, ge=1, le=2**31 - 1, alias="MAX_REGISTERED_CREDITS")
    reset_interval_hours: float = Field(24, gt=0, alias="CREDIT_RESET_INTERVAL_HOURS")
    hold_lifetime_seconds: PositiveInt = Field(60, alias="CREDIT_HOLD_TTL_SECONDS")
    retention_days: int = Field(90, ge=1, le=36500, alias="TRANSACTION_RETENTION_DAYS")

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

    validity_minutes: float = Field(60, gt=0, alias="CACHE_VALIDITY_MINUTES")
    stale_answers: int = Field(
        10_000, ge=0, alias="STALE_ANSWERS", description="per process, for when the database is unavailable"
    )
    stale_bytes: PositiveInt = Field(
        64 * 2**20, alias="STALE_ANSWERS_BYTES", description="limit of their size in each process"
    )
    stale_hours: float = Field(
        24, gt=0, le=24, alias="STALE_ANSWERS_HOURS", description="how old one may be when it is served"
    )

    redis_url: SecretStr | None = Field(
        None, alias="REDIS_URL", description="`redis://` or `rediss://`: where instances share answers"
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
        False, alias="CONSENT_REQUIRED", description="whether only those who agreed to the published terms are answered"
    )
    grace_hours: float = Field(
        72, ge=0, le=8784, alias="CONSENT_GRACE_HOURS", description="how long the version before counts by default"
    )


class PrivacySettings(SettingsGroup):
    """Retention of the list of erasures."""

    erasure_list_days: int = Field(
        365, ge=1, le=36500, alias="ERASURE_LIST_DAYS", description="also the maximum age of a restored backup"
    )

    @property
    def erasure_list_lifetime(self) -> timedelta:
        """Return how long an erasure stays on the list."""
        return timedelta(days=self.erasure_list_days)


class AssistantSettings(SettingsGroup):
    """The assistant and its affiliate links."""

    affiliate_tag: str | None = Field(None, alias="AFFILIATE_TAG")
    affiliate_program: str = Field("amazon", alias="AFFILIATE_PROGRAM")
    market_currency: str = Field("INR", pattern="^[A-Z]{3}$", alias="MARKET_CURRENCY", description="ISO 4217")
    timeout_seconds: float = Field(30, gt=0, alias="QUERY_TIMEOUT_SECONDS")
    sample_catalogue: bool | None = Field(
        None, alias="SAMPLE_CATALOGUE", description="whether an empty catalogue is filled; default: outside production"
    )
    gemini_api_key: SecretStr | None = Field(None, alias="GEMINI_API_KEY")


class TelemetrySettings(SettingsGroup):
    """Metrics and traces."""

    metrics_token: SecretStr | None = Field(
        None, alias="METRICS_TOKEN", min_length=16, description="of Prometheus; if unset, for private networks"
    )
    otlp_endpoint: str | None = Field(
        None, pattern="^https?://", alias="OTEL_EXPORTER_OTLP_ENDPOINT", description="for traces; if unset, none"
    )
    service_name: str = Field("shopassist", alias="OTEL_SERVICE_NAME", description="in traces")


class AdministrationSettings(SettingsGroup):
    """Settings of commands that call the running server (`shopassist rollout`). The server does not read them."""

    url: str | None = Field(
        None, alias="SHOPASSIST_URL", pattern="^https?://", description="default: API_HOST and API_PORT here"
    )
    token: SecretStr | None = Field(
        None, alias="ADMIN_TOKEN", description="an administrator's access token; not needed with the embedded database"
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
    def _check_combinations(self) -> Self:
        if self.credits.hold_lifetime_seconds <= self.assistant.timeout_seconds:
            raise ValueError(
                f"CREDIT_HOLD_TTL_SECONDS ({self.credits.hold_lifetime_seconds:g}) must be above "
                f"QUERY_TIMEOUT_SECONDS ({self.assistant.timeout_seconds:g}), or a credit comes back before its answer"
            )
        if self.storage.storage is Storage.ROLLOUT and self.database.start_degraded:
            raise ValueError(
                "START_DEGRADED must not be set with STORAGE=rollout: without the database it is not known who was "
                "moved there, and they would begin anew in memory"
            )
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

    def with_port(self, port: int) -> Self:
        """Return the same settings with the port in use, which API_PORT=0 leaves open."""
        return self.model_copy(update={"server": self.server.model_copy(update={"port": port})})

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
