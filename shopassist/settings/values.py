"""Types of settings that have several spellings, or that are checked beyond their type."""

import ipaddress
import os
import re
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

DEFAULT_API_PORT = 8000
MAX_PORT = 65535
ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[^\s/?#@:\[\]]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?/?", re.IGNORECASE
)
HOST_NAME = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
ALLOWED_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
DEFAULT_PORTS = {"http": "80", "https": "443"}
SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")
MIN_KEY_LENGTH = 32


class Environment(StrEnum):
    """Where the server runs. Only production has rules of its own."""

    DEVELOPMENT = "development"
    TEST = "test"
    STAGING = "staging"
    PRODUCTION = "production"


class LogLevel(StrEnum):
    """The least important events that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


ALIASES = {
    "dev": Environment.DEVELOPMENT,
    "local": Environment.DEVELOPMENT,
    "testing": Environment.TEST,
    "stage": Environment.STAGING,
    "prod": Environment.PRODUCTION,
    "warn": LogLevel.WARNING,
    "fatal": LogLevel.CRITICAL,
}


def read_name(value: Any) -> Any:
    """Return a name in lower case, or what it is an alias of."""
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return ALIASES.get(name, name)


def split_list(value: Any) -> Any:
    """Return the parts of a list that is separated by commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def read_origin(text: str) -> str:
    """Return an origin as browsers send it: in lower case, without the default port. Raises `ValueError`."""
    match = ORIGIN.fullmatch(text)
    try:
        host = match["host"].lower().encode("idna").decode() if match else ""
    except UnicodeError:
        host = ""
    if match is None or not HOST_NAME.fullmatch(host) or int(match["port"] or 0) > MAX_PORT:
        raise ValueError(
            "each origin is http:// or https:// and a host, such as https://shop.example, without a path; several are "
            "separated by commas"
        )
    scheme, port = match["scheme"].lower(), match["port"]
    return f"{scheme}://{host}" + (f":{port}" if port and port != DEFAULT_PORTS[scheme] else "")


def read_allowed_host(text: str) -> str:
    """Return a name as `Host` is compared with it: in lower case, IPv6 without brackets. Raises `ValueError`."""
    name = text.lower().removesuffix(".")
    with suppress(ValueError):
        return str(ipaddress.IPv6Address(name[1:-1] if name.startswith("[") and name.endswith("]") else name))
    with suppress(UnicodeError):
        name = name if name.isascii() else name.encode("idna").decode()
    if name != "*" and not ALLOWED_NAME.fullmatch(name):
        raise ValueError(
            "write only the name or address, such as shop.example, *.shop.example or 10.0.0.1, without https://, port "
            "and path; several are separated by commas"
        )
    return name


def require_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names. Raises `ValueError` when there are none, since every request would be refused."""
    if not hosts:
        raise ValueError("it holds no name: write the names of the server, or * for any")
    return hosts


def read_port(value: Any) -> Any:
    """Return a port; the default instead of the address that Kubernetes sets for a service with the name `api`."""
    if isinstance(value, str) and SERVICE_LINK.match(value):
        reason = f"It is the address of a service of Kubernetes, and not a port: {DEFAULT_API_PORT} is used."
        structlog.get_logger(__name__).warning("setting_ignored", name="API_PORT", reason=reason)
        return DEFAULT_API_PORT
    return value


def expand_home(path: str) -> Path:
    """Return a path with `~` replaced, where the home folder is known."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - unlike Path's, it raises no error


def read_folder(path: Path) -> Path:
    """Return a folder, which may be missing, with `~` replaced. Raises `ValueError` when a file is in the way."""
    path = expand_home(str(path))
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise ValueError("the home folder that ~ stands for is not known: write the whole path")
    nearest = next((part for part in (path, *path.parents) if os.path.lexists(part)), path)
    if os.path.lexists(nearest) and not os.path.isdir(nearest):  # noqa: PTH112 - unlike Path's, it raises no error
        raise ValueError(f"{nearest} is not a folder")
    return path


def check_key(key: str) -> str:
    """Return a key. Raises `ValueError` when it is too short, spaces around it not counted."""
    if len(key.strip()) < MIN_KEY_LENGTH:
        raise ValueError(f"it must have at least {MIN_KEY_LENGTH} characters, spaces around them not counted")
    return key


Named = BeforeValidator(read_name)
AllowedHosts = Annotated[
    tuple[Annotated[str, AfterValidator(read_allowed_host)], ...],
    NoDecode,
    BeforeValidator(split_list),
    AfterValidator(require_hosts),
]
Origins = Annotated[tuple[Annotated[str, AfterValidator(read_origin)], ...], NoDecode, BeforeValidator(split_list)]
Port = Annotated[int, BeforeValidator(read_port), Field(ge=0, le=MAX_PORT)]
FolderPath = Annotated[Path, AfterValidator(read_folder)]
