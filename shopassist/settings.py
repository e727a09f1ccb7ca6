"""Settings: the one place that reads the environment (and a `.env` file).

Each group is frozen. A field's name is what code uses, its alias the environment variable that callers rely on.
"""

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

WORKER = "SHOPASSIST_WORKER"
"""Set by `serve` for its worker processes, which must not outlive it: the file for the reason why all are to end."""


class Storage(StrEnum):
    """Where state is kept."""

    POSTGRES = "postgres"
    MEMORY = "memory"


class _Group(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )


class DatabaseConfig(_Group):
    """The connection to PostgreSQL. Without a URL the embedded server is used."""

    database_url: SecretStr | None = Field(default=None, alias="DATABASE_URL")
    migration_url: SecretStr | None = Field(
        default=None, alias="DATABASE_MIGRATION_URL", description="the owner's link, for migrations"
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
        description="how long the database may be away before the process gives up and exits; unless said, for ever",
    )
    data_folder: Path = Field(
        default=Path(__file__).resolve().parents[1] / ".data",
        alias="SHOPASSIST_DATA",
        description="of the embedded server and of local keys",
    )


class ProvisioningSettings(_Group):
    """Who makes the database's roles (`shopassist db provision`), and what they are; the server never reads this."""

    admin_url: SecretStr | None = Field(
        default=None, alias="DATABASE_ADMIN_URL", description="an administrator's link to the product's database"
    )
    owner_role: str = Field(default="shopassist_owner", alias="DB_OWNER_ROLE", min_length=1, max_length=63)
    owner_password: SecretStr | None = Field(default=None, alias="DB_OWNER_PASSWORD")
    app_role: str = Field(default="shopassist_app", alias="DB_APP_ROLE", min_length=1, max_length=63)
    app_password: SecretStr | None = Field(default=None, alias="DB_APP_PASSWORD")
    read_role: str = Field(default="shopassist_read", alias="DB_READ_ROLE", min_length=1, max_length=63)
    read_password: SecretStr | None = Field(default=None, alias="DB_READ_PASSWORD")


class CreditSettings(_Group):
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


class CacheSettings(_Group):
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

    @property
    def validity(self) -> timedelta:
        """How long an answer is served."""
        return timedelta(minutes=self.validity_minutes)

    @property
    def stale_lifetime(self) -> timedelta:
        """How old an answer may be that is served while the database is away."""
        return timedelta(hours=self.stale_hours)


class IdentitySettings(_Group):
    """Who issues the tokens that are believed: any OpenID Connect issuer, by either family of names."""

    oidc_issuer: str | None = Field(default=None, alias="OIDC_ISSUER")
    oidc_audience: str | None = Field(default=None, alias="OIDC_AUDIENCE")
    domain: str | None = Field(default=None, alias="AUTH0_DOMAIN")
    auth0_audience: str | None = Field(default=None, alias="AUTH0_API_AUDIENCE")
    auth0_issuer: str | None = Field(default=None, alias="AUTH0_ISSUER")
    admin_scope: str = Field(default="shopassist:admin", alias="ADMIN_SCOPE")

    @property
    def issuer(self) -> str | None:
        """The issuer with its trailing slash, or None where no identity provider is set."""
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        issuer = self.oidc_issuer or auth0
        return f"{issuer.rstrip('/')}/" if issuer else None

    @property
    def audience(self) -> str | None:
        """The audience that a token must name."""
        return self.oidc_audience or self.auth0_audience

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        pairs = (
            ("OIDC_ISSUER", self.oidc_issuer, "AUTH0_ISSUER or AUTH0_DOMAIN", auth0),
            ("OIDC_AUDIENCE", self.oidc_audience, "AUTH0_API_AUDIENCE", self.auth0_audience),
        )
        for name, value, other, other_value in pairs:
            if value and other_value and value.rstrip("/") != other_value.rstrip("/"):
                raise ValueError(f"{name} and {other} name different things: set one of them")
        return self


class AssistantSettings(_Group):
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


class ServerSettings(_Group):
    """The HTTP server."""

    host: str = Field(default="127.0.0.1", alias="API_HOST")
    port: int = Field(default=8000, ge=0, le=65535, alias="API_PORT")
    workers: PositiveInt = Field(default=1, alias="WORKERS")
    debug: bool = Field(default=False, alias="DEBUG")
    log_level: str = Field(default="info", alias="LOG_LEVEL")
    environment: str = Field(default="development", alias="ENVIRONMENT")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(default=("*",), alias="ALLOWED_HOSTS")
    frontend_url: str | None = Field(default=None, alias="FRONTEND_URL")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def production(self) -> bool:
        """Whether this is a production deployment."""
        return self.environment.lower() in {"production", "prod"}

    @property
    def origins(self) -> list[str]:
        """Origins whose pages may call the API."""
        local = ["http://localhost:5173", "http://localhost:3000"]
        return [*local, *([self.frontend_url.rstrip("/")] if self.frontend_url else [])]


class StorageSettings(_Group):
    """Which twin keeps the state."""

    storage: Storage = Field(default=Storage.POSTGRES, alias="STORAGE")


class Settings(BaseModel):
    """All groups. `Settings()` reads the environment; tests pass the groups they care about."""

    model_config = ConfigDict(frozen=True)

    database: DatabaseConfig = Field(default_factory=DatabaseConfig)
    credits: CreditSettings = Field(default_factory=CreditSettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    identity: IdentitySettings = Field(default_factory=IdentitySettings)
    assistant: AssistantSettings = Field(default_factory=AssistantSettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    embedded_database: bool = False

    @model_validator(mode="after")
    def _holds_outlive_work(self) -> Self:
        if self.credits.hold_lifetime_seconds <= self.assistant.timeout_seconds:
            raise ValueError(
                f"CREDIT_HOLD_TTL_SECONDS ({self.credits.hold_lifetime_seconds:g}) must be above "
                f"QUERY_TIMEOUT_SECONDS ({self.assistant.timeout_seconds:g}), or a credit comes back before its answer"
            )
        return self

    @property
    def fill_with_sample(self) -> bool:
        """Whether an empty catalogue is filled with the sample."""
        wanted = self.assistant.sample_catalogue
        return not self.server.production if wanted is None else wanted

    def with_embedded(self, url: str) -> Self:
        """The same settings on the embedded database, which is at `url`."""
        database = self.database.model_copy(update={"database_url": SecretStr(url)})
        return self.model_copy(update={"database": database, "embedded_database": True})
