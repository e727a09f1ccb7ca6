"""DSNs: parse the usual spellings, apply the TLS settings, and choose the one for migrations and backups."""

import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import certifi
from pydantic import SecretStr
from sqlalchemy import URL, make_url

from shopassist.errors import StartupError
from shopassist.settings import Settings
from shopassist.settings.database import DatabaseConfig, PoolMode, SslMode

LIBPQ_TO_ASYNCPG = {"sslmode": "ssl", "application_name": None, "connect_timeout": None}
"""Parameters that a libpq link may carry, and asyncpg's name for them; None where we set the matter ourselves."""

DRIVER_PARAMETERS = {
    "statement_cache_size",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "async_fallback",
}
"""Parameters of drivers' own making, which a server would not know: `DB_POOL_MODE` sees to what they are for."""

NETWORK_LOCATION = re.compile(
    r"(?P<scheme>[^:/?#]+://)(?P<user>[^:/]*(?::[^@]*)?@)?(?P<hosts>[^/?#@]*)(?P<rest>.*)", re.DOTALL
)
HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*|/.*?)(?::(?P<port>\d+))?")
DEFAULT_PORT = 5432
SESSION_ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")


@dataclass(frozen=True, slots=True)
class Host:
    """Where one server listens: a name, an address, or the folder of its socket."""

    name: str
    port: int = DEFAULT_PORT

    @property
    def text(self) -> str:
        """As it stands in a link."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def normalise_dsn(url: str, name: str = "DATABASE_URL", several_want: str = "read-write") -> URL:
    """`url` for SQLAlchemy and asyncpg, whichever of its usual spellings it came in.

    Several hosts, as libpq or SQLAlchemy write them, become one `host=` each; which of them is wanted is said by
    `several_want` where the link does not. Raises `StartupError`, which speaks of `name`, for what is no such link.
    """
    match = NETWORK_LOCATION.fullmatch(url)
    hosts = match["hosts"] if match else ""
    if match and "," in hosts:  # which SQLAlchemy takes for a port
        url = f"{match['scheme']}{match['user'] or ''}{match['rest']}"
    try:
        parsed = make_url(url)
        several = _parse_hosts(hosts, parsed)
    except Exception:  # noqa: BLE001 - the parser's own text would show the password
        raise StartupError(f"{name} is not a link of the form postgresql://user:password@host/database.") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise StartupError(f"{name} must be a PostgreSQL link: postgresql://user:password@host/database.")
    query = {
        LIBPQ_TO_ASYNCPG.get(key, key): value for key, value in parsed.query.items() if key not in DRIVER_PARAMETERS
    }
    if len(several) > 1:
        query = {**query, "host": tuple(host.text for host in several)}
        query.pop("port", None)
        query.setdefault("target_session_attrs", several_want)
        parsed = URL.create("postgresql", parsed.username, parsed.password, database=parsed.database)
    if query.get("target_session_attrs", "any") not in SESSION_ATTRIBUTES:
        raise StartupError(f"target_session_attrs in {name} must be one of {', '.join(SESSION_ATTRIBUTES)}.")
    return parsed.set(drivername="postgresql+asyncpg", query={k: v for k, v in query.items() if k is not None})


def get_hosts(url: URL) -> list[Host]:
    """The servers of a normalised link, in its order."""
    return _parse_hosts("", url) or [Host("localhost")]


def format_hosts_and_database(url: URL) -> str:
    """Hosts, ports and database of `url`, without user and password."""
    return f"{','.join(host.text for host in get_hosts(url))}/{url.database or ''}"


def build_driver_dsn(url: URL) -> str:
    """The link as asyncpg itself takes it, but for the hosts, of which it is told one at a time."""
    query = {("sslmode" if key == "ssl" else key): value for key, value in url.query.items()}
    for key in ("host", "port", "target_session_attrs"):
        query.pop(key, None)
    link = URL.create("postgresql", url.username, url.password, database=url.database, query=query)
    return link.render_as_string(hide_password=False)


def _parse_hosts(location: str, parsed: URL) -> list[Host]:
    """Raises `ValueError`."""
    ports = [port for value in _as_list(parsed.query.get("port")) for port in value.split(",")]
    if "," in location:
        written = location.split(",")
    elif "host" in parsed.query:
        written = [host for value in _as_list(parsed.query["host"]) for host in value.split(",")]
    else:
        return [Host(parsed.host, parsed.port or DEFAULT_PORT)] if parsed.host else []
    if len(ports) not in {0, 1, len(written)}:
        raise ValueError(ports)
    own = parsed.port or DEFAULT_PORT
    return [
        _parse_host(text, int(ports[index % len(ports)] or own) if ports else own) for index, text in enumerate(written)
    ]


def _parse_host(text: str, port: int) -> Host:
    match = HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return Host(match["host"].strip("[]") or "localhost", int(match["port"] or port))


def _as_list(value: str | tuple[str, ...] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


SYSTEM_AUTHORITIES = "system"
VERIFYING_MODES = {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}
TLS_REJECTED_MESSAGE = "rejected SSL upgrade"
"""asyncpg's own words; it has no class for it."""


def apply_tls_settings(url: URL, config: DatabaseConfig, name: str = "DATABASE_URL") -> URL:
    """The normalised link `url` of the setting `name`, with the mode and the certificates of the settings.

    Raises `StartupError` where both say different things, and where what is to be verified with cannot be used.
    """
    mode = _merge_setting(name, "sslmode", url.query.get("ssl"), "DB_SSL_MODE", config.ssl_mode)
    given = _merge_setting(name, "sslrootcert", url.query.get("sslrootcert"), "DB_SSL_ROOT_CERT", config.ssl_root_cert)
    if mode is not None and mode not in set(SslMode):
        raise StartupError(f"sslmode in {name} must be one of {', '.join(SslMode)}.")
    if mode in VERIFYING_MODES and given is None and not (Path.home() / ".postgresql" / "root.crt").exists():
        raise StartupError(
            f"DB_SSL_ROOT_CERT is not set, and {mode} needs it: the file of the certificate of the authority that the "
            f"database's is from, or `{SYSTEM_AUTHORITIES}` for the authorities that this machine knows."
        )
    authority = None if given is None else _find_authority_file(given)
    told = {"ssl": None if mode is None else str(mode), "sslrootcert": authority}
    query = {**url.query, **{key: value for key, value in told.items() if value is not None}}
    return url.set(query=query)


def _merge_setting(name: str, parameter: str, in_link: Any, setting: str, value: str | None) -> str | None:
    if in_link is not None and value is not None and in_link != value:
        raise StartupError(f"{setting} and {parameter} in {name} say different things: set one of them.")
    found = value if in_link is None else in_link
    return None if found is None else str(found)


def _find_authority_file(authority: str) -> str:
    file = (ssl.get_default_verify_paths().cafile or certifi.where()) if authority == SYSTEM_AUTHORITIES else authority
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartupError(f"DB_SSL_ROOT_CERT cannot be used: {reason}.") from None
    return file


def require_tls_choice(url: URL, name: str = "DATABASE_URL") -> None:
    """Refuse a link to another machine of which nobody said how it is protected. Raises `StartupError`."""
    if "ssl" not in url.query and not is_local_dsn(url):
        raise StartupError(
            f"{name} leads to another machine, and nothing says how the way there is protected. Set DB_SSL_MODE to "
            "verify-full (with DB_SSL_ROOT_CERT), or to disable on a network that nobody else is on."
        )


def is_local_dsn(url: URL) -> bool:
    """Whether a normalised link stays on this machine."""
    return all(_is_local_host(host.name) for host in get_hosts(url))


def _is_local_host(name: str) -> bool:
    if name.startswith(("/", "@")) or name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_tls_disabled(url: URL) -> bool:
    """Whether a link forbids TLS."""
    return url.query.get("ssl") == SslMode.DISABLE


def get_tls_error_message(error: BaseException) -> str | None:
    """What is wrong with the server's certificate, or its want of one; None for errors of other kinds.

    A certificate that does not hold is no server that is away: waiting for it to come back would be in vain.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not hold: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"cannot be spoken to over TLS: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(error, ConnectionError) and TLS_REJECTED_MESSAGE in str(error):
        return "does not speak TLS, which DB_SSL_MODE or its link asks for"
    return None


def build_dsn(settings: Settings, link: SecretStr, name: str = "DATABASE_URL") -> URL:
    """The link of the setting `name`, protected as the settings say. Raises `StartupError`."""
    url = apply_tls_settings(normalise_dsn(link.get_secret_value()), settings.database, name)
    if settings.server.production and not settings.embedded_database:
        require_tls_choice(url, name)
    return url


def find_session_dsn(settings: Settings, only_owner: bool = False) -> URL | None:
    """The owner's link, else, unless `only_owner`, the app's past any pooler; None where there is none.

    For migrations, their lock, and backups. Raises `StartupError`.
    """
    database = settings.database
    if database.migration_url is not None:
        return build_dsn(settings, database.migration_url, "DATABASE_MIGRATION_URL")
    if only_owner:
        return None
    if database.direct_url is not None:
        return build_dsn(settings, database.direct_url, "DATABASE_DIRECT_URL")
    if database.pool_mode is PoolMode.TRANSACTION or database.database_url is None:
        return None
    return build_dsn(settings, database.database_url)


def require_session_dsn(settings: Settings) -> URL:
    """The link of `session_link`. Raises `StartupError` when there is none."""
    link = find_session_dsn(settings)
    if link is not None:
        return link
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    raise StartupError("DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this.")
