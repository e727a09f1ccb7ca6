"""The HTTP server."""

from typing import Annotated

from pydantic import Field, IPvAnyNetwork, PositiveInt, field_validator
from pydantic_settings import NoDecode

from shopassist.settings.group import Group

WORKER = "SHOPASSIST_WORKER"
"""Set by `serve` for its worker processes, which must not outlive it: the folder that those of one start share."""


class ServerSettings(Group):
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
