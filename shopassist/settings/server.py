"""Settings of the HTTP server and its callers: identity, guests, rate limits."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, IPvAnyNetwork, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from shopassist.settings.group import SettingsGroup


class IdentitySettings(SettingsGroup):
    """Who issues the tokens that are believed: any OpenID Connect issuer, by either family of names."""

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
        description="what the server signs with and hashes user ids with, the same for all servers of one database",
    )

    @property
    def issuer(self) -> str | None:
        """The issuer with its trailing slash, or None where no identity provider is set."""
        auth0 = self.auth0_issuer or (f"https://{self.domain}" if self.domain else None)
        issuer = self.oidc_issuer or auth0
        return f"{issuer.rstrip('/')}/" if issuer else None

    @property
    def issuer_names(self) -> tuple[str, ...]:
        """How the issuer's tokens may spell its name: Auth0's with the slash, others as that issuer does."""
        if self.issuer is None:
            return ()
        return (self.issuer, self.issuer.rstrip("/")) if self.oidc_issuer else (self.issuer,)

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


class GuestSessionKind(StrEnum):
    """Which session ids are believed: any that a browser makes up, or only those that this server signed."""

    ANY = "any"
    SIGNED = "signed"


class GuestSettings(SettingsGroup):
    """How many guests may come, and how they say who they are."""

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
        """Whether no session id is believed that this server did not sign."""
        return self.sessions is GuestSessionKind.SIGNED


class LimitSettings(SettingsGroup):
    """How often the API may be asked, by one caller and by all callers of one network; each process counts alone."""

    questions_per_minute: PositiveInt = Field(default=30, alias="RATE_LIMIT_QUESTIONS_PER_MINUTE")
    reads_per_minute: PositiveInt = Field(default=300, alias="RATE_LIMIT_READS_PER_MINUTE")
    network_factor: PositiveInt = Field(
        default=20, alias="RATE_LIMIT_NETWORK_FACTOR", description="how many times that the callers of one network may"
    )


WORKER = "SHOPASSIST_WORKER"
"""Set by `serve` for its worker processes, which must not outlive it: the folder that those of one start share."""


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
        default=(),
        alias="TRUSTED_PROXIES",
        description="networks (CIDR) of the proxies that are believed to say whom they ask for",
    )
    frontend_url: str | None = Field(default=None, alias="FRONTEND_URL")

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
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


def http_address(host: str, port: int) -> str:
    """The address of a server; IPv6 goes in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
