"""Parses DSNs, applies the TLS settings, and chooses the DSN for migrations and backups."""

import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import certifi
from pydantic import SecretStr
from sqlalchemy import URL, make_url

from shopassist.errors import StartupError
from shopassist.settings import Settings
from shopassist.settings.database import DatabaseConfig, PoolMode, SslMode
from shopassist.settings.values import expand_home

IGNORED_PARAMETERS = (
    # Replaced by our own settings.
    {"application_name", "fallback_application_name", "client_encoding", "connect_timeout", "async_fallback"}
    # Of libpq, where this driver has its own way, or what cannot be set does not matter.
    | {"gssencmode", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"}
    | {"channel_binding", "sslsni", "sslcompression", "sslcertmode", "load_balance_hosts", "uselibpqcompat"}
    # Of the caches and pools of Prisma, pgx, Rails, SQLAlchemy, JDBC and hosters.
    | {"statement_cache_size", "prepared_statement_cache_size", "prepared_statement_name_func", "pgbouncer"}
    | {"connection_limit", "pool_timeout", "socket_timeout", "statement_cache_capacity", "default_query_exec_mode"}
    | {"pool", "pool_size", "pool_max_conns", "pool_min_conns", "prepared_statements", "prepareThreshold", "supa"}
    # Read before the others are.
    | {"ssl", "sslmode", "schema", "currentSchema"}
)
SCHEMA = "public"
SSL_MODE_ALIASES = {
    **dict.fromkeys(("true", "1", "on", "yes", "no-verify"), SslMode.REQUIRE),
    **dict.fromkeys(("false", "0", "off", "no"), SslMode.DISABLE),
}
"""How drivers other than libpq say it."""

NETWORK_LOCATION = re.compile(
    r"(?P<scheme>[^:/?#]+://)(?P<user>[^:/]*(?::[^@]*)?@)?(?P<hosts>[^/?#@]*)(?P<rest>.*)", re.DOTALL
)
HOST_AND_PORT = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*|/.*?)(?::(?P<port>\d+))?")
DEFAULT_PORT = 5432
AT_SIGN_IN_PARAMETER = re.compile(r"[?&](?:host|user|password|application_name|options)=[^&]*")
SESSION_ATTRIBUTES = ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")


@dataclass(frozen=True, slots=True)
class Host:
    """The host name, address or socket folder of one server, and its port."""

    name: str
    port: int = DEFAULT_PORT

    @property
    def text(self) -> str:
        """Return it as written in a DSN."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def normalise_dsn(url: str, name: str = "DATABASE_URL", default_target: str = "read-write") -> URL:
    """Return a DSN in any of the usual spellings as a URL for SQLAlchemy and asyncpg.

    Several hosts, in libpq's or SQLAlchemy's form, become one `host=` each, with `default_target` as
    `target_session_attrs` unless given. Raises `StartupError` that names the setting `name` for an invalid DSN.
    """
    url = url.strip()
    match = NETWORK_LOCATION.fullmatch(url)
    hosts = match["hosts"] if match else ""
    if match and "@" in AT_SIGN_IN_PARAMETER.sub("", match["rest"]):
        raise StartupError(
            f"The user or password in {name} has characters that a link must encode: write @ as %40, / as %2F, "
            "? as %3F, # as %23 and % as %25."
        )
    if match and "," in hosts:  # which SQLAlchemy takes for a port
        url = f"{match['scheme']}{match['user'] or ''}{match['rest']}"
    try:
        parsed = make_url(url if url.isprintable() else "")  # a name with a line end would be printed as it is
        several = _parse_hosts(hosts, parsed)
    except Exception:  # noqa: BLE001 - the parser's own text would show the password
        raise StartupError(f"{name} is not a link of the form postgresql://user:password@host/database.") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise StartupError(f"{name} must be a PostgreSQL link: postgresql://user:password@host/database.")
    query = _read_parameters(parsed, name)
    if len(several) > 1:
        query = {**query, "host": tuple(host.text for host in several)}
        query.pop("port", None)
        query.setdefault("target_session_attrs", default_target)
        parsed = URL.create("postgresql", parsed.username, parsed.password, database=parsed.database)
    if query.get("target_session_attrs", "any") not in SESSION_ATTRIBUTES:
        raise StartupError(f"target_session_attrs in {name} must be one of {', '.join(SESSION_ATTRIBUTES)}.")
    return parsed.set(drivername="postgresql+asyncpg", query=query)


def _read_parameters(parsed: URL, name: str) -> dict[str, str | tuple[str, ...]]:
    """Return the parameters that matter here, with the TLS mode as `ssl`. Raises `StartupError`."""
    given = {key: value if isinstance(value, str) else value[-1] for key, value in parsed.query.items()}
    if schema := {given.get("schema") or SCHEMA, given.get("currentSchema") or SCHEMA} - {SCHEMA}:
        raise StartupError(f"{name} asks for the schema {schema.pop()}, and the tables are in {SCHEMA}: remove that.")
    if given.get("gssencmode") == "require":
        raise StartupError(f"{name} asks for gssencmode=require, which is not possible here: use sslmode=require.")
    query = {key: value for key, value in parsed.query.items() if key not in IGNORED_PARAMETERS}
    bound = SslMode.REQUIRE if given.get("channel_binding") == "require" else None
    if mode := given.get("sslmode") or given.get("ssl") or bound:
        mode = mode.lower().replace("_", "-")
        query["ssl"] = SSL_MODE_ALIASES.get(mode, mode)
    return query


def get_hosts(url: URL) -> list[Host]:
    """Return the servers of a normalised DSN, in its order."""
    return _parse_hosts("", url) or [Host("localhost")]


def format_hosts_and_database(url: URL) -> str:
    """Return hosts, ports and database of `url`, without user and password."""
    return f"{','.join(host.text for host in get_hosts(url))}/{url.database or ''}"


def build_driver_dsn(url: URL) -> str:
    """Return the DSN for asyncpg, without hosts."""
    own = {"host", "port", "target_session_attrs"}
    query = {("sslmode" if key == "ssl" else key): value for key, value in url.query.items() if key not in own}
    link = URL.create("postgresql", url.username, url.password, database=url.database, query=query)
    return link.render_as_string(hide_password=False)


def _parse_hosts(location: str, parsed: URL) -> list[Host]:
    """Raise `ValueError` for an invalid host or port."""
    query = parsed.normalized_query
    own = parsed.port or DEFAULT_PORT
    if "," in location:
        written = location.split(",")
    elif "host" in query:
        written = ",".join(query["host"]).split(",")
    else:
        return [Host(parsed.host, own)] if parsed.host else []
    ports = [int(port or own) for value in query.get("port", ()) for port in value.split(",")] or [own]
    if len(ports) not in {1, len(written)}:
        raise ValueError(ports)
    return [_parse_host(text, ports[index % len(ports)]) for index, text in enumerate(written)]


def _parse_host(text: str, port: int) -> Host:
    match = HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return Host(match["host"].strip("[]") or "localhost", int(match["port"] or port))


SYSTEM_AUTHORITIES = "system"
HOME_AUTHORITY = "~/.postgresql/root.crt"
VERIFYING_MODES = {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}
TLS_REJECTED_MESSAGE = "rejected SSL upgrade"
"""asyncpg's message; it has no class for this error."""


def apply_tls_settings(url: URL, config: DatabaseConfig, name: str = "DATABASE_URL") -> URL:
    """Return the normalised DSN `url` of the setting `name` with the TLS mode and certificates of the settings.

    Raises `StartupError` if DSN and settings contradict each other, or the certificates cannot be used.
    """
    mode = _merge_setting(name, "sslmode", url.query.get("ssl"), "DB_SSL_MODE", config.ssl_mode)
    given = _merge_setting(name, "sslrootcert", url.query.get("sslrootcert"), "DB_SSL_ROOT_CERT", config.ssl_root_cert)
    if mode is not None and mode not in set(SslMode):
        raise StartupError(f"sslmode in {name} must be one of {', '.join(SslMode)}.")
    if mode in VERIFYING_MODES and given is None and not expand_home(HOME_AUTHORITY).exists():
        raise StartupError(
            f"DB_SSL_ROOT_CERT is not set, and {mode} needs it: the file of the certificate of the authority that the "
            f"database's is from, or `{SYSTEM_AUTHORITIES}` for the authorities that this machine knows."
        )
    authority = None if given is None else _find_authority_file(given)
    parameters = {"ssl": None if mode is None else str(mode), "sslrootcert": authority}
    query = {**url.query, **{key: value for key, value in parameters.items() if value is not None}}
    return url.set(query=query)


def _merge_setting(name: str, parameter: str, in_link: Any, setting: str, value: str | None) -> str | None:
    if in_link is not None and value is not None and in_link != value:
        raise StartupError(f"{setting} and {parameter} in {name} say different things: set one of them.")
    found = value if in_link is None else in_link
    return None if found is None else str(found)


def _find_authority_file(authority: str) -> str:
    system = ssl.get_default_verify_paths().cafile or certifi.where()
    file = system if authority == SYSTEM_AUTHORITIES else str(expand_home(authority))
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartupError(f"DB_SSL_ROOT_CERT cannot be used: {reason}.") from None
    return file


def is_local_dsn(url: URL) -> bool:
    """Return whether all hosts of a normalised DSN are this machine."""
    return all(is_local_host(host.name) for host in get_hosts(url))


def is_local_host(name: str) -> bool:
    """Return whether a host is this machine: a loopback address or a Unix socket."""
    if name.startswith(("/", "@")) or name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def get_tls_error_message(error: BaseException) -> str | None:
    """Return what is wrong with the server's certificate or TLS, or None for other errors.

    Unlike an unreachable server, an invalid certificate does not recover by waiting.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not hold: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"cannot be spoken to over TLS: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(error, ConnectionError) and TLS_REJECTED_MESSAGE in str(error):
        return "does not speak TLS, which DB_SSL_MODE or its link asks for"
    return None


def build_dsn(settings: Settings, link: SecretStr, name: str = "DATABASE_URL") -> URL:
    """Return the DSN of the setting `name` with the TLS settings.

    Raises `StartupError`, in production also for a DSN to another machine without a TLS mode.
    """
    url = apply_tls_settings(normalise_dsn(link.get_secret_value(), name), settings.database, name)
    must_be_explicit = settings.server.production and not settings.embedded_database
    if must_be_explicit and "ssl" not in url.query and not is_local_dsn(url):
        raise StartupError(
            f"{name} leads to another machine, and nothing says how the way there is protected. Set DB_SSL_MODE to "
            "verify-full (with DB_SSL_ROOT_CERT), or to disable on a private network."
        )
    return url


def get_session_setting(settings: Settings) -> str:
    """Return the setting of the DSN for migrations and backups: the owner's, else one that bypasses any pooler."""
    if settings.database.migration_url is not None:
        return "DATABASE_MIGRATION_URL"
    return get_link_setting(settings) if settings.database.direct_url is None else "DATABASE_DIRECT_URL"


def get_link_setting(settings: Settings) -> str:
    """Return where the DSN of the app is from."""
    return "postgresql.password in SHOPASSIST_DATA" if settings.embedded_database else "DATABASE_URL"


def find_session_dsn(settings: Settings, only_owner: bool = False) -> URL | None:
    """Return the DSN of `get_session_setting`, or None if there is none; with `only_owner` only the owner's.

    Raises `StartupError`.
    """
    database, name = settings.database, get_session_setting(settings)
    if only_owner and name != "DATABASE_MIGRATION_URL":
        return None
    link = database.migration_url or database.direct_url
    if link is None and database.pool_mode is not PoolMode.TRANSACTION:
        link = database.database_url
    return None if link is None else build_dsn(settings, link, name)


def require_session_dsn(settings: Settings) -> URL:
    """Return the DSN of `find_session_dsn`. Raises `StartupError` if there is none."""
    link = find_session_dsn(settings)
    if link is not None:
        return link
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    raise StartupError("DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this.")
