"""Links to a database as people write them, and the one form that is worked with."""

import re
from dataclasses import dataclass

from sqlalchemy import URL, make_url

from shopassist.errors import StartupError

LIBPQ_TO_ASYNCPG = {"sslmode": "ssl", "application_name": None, "connect_timeout": None}
"""Parameters that a libpq link may carry, and asyncpg's name for them; None where we set the matter ourselves."""

OURS = {"statement_cache_size", "prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"}
"""Parameters of drivers' own making, which a server would not know: `DB_POOL_MODE` sees to what they are for."""

NETWORK_LOCATION = re.compile(
    r"(?P<scheme>[^:/?#]+://)(?P<user>[^:/]*(?::[^@]*)?@)?(?P<hosts>[^/?#@]*)(?P<rest>.*)", re.DOTALL
)
ONE_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*|/.*?)(?::(?P<port>\d+))?")
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


def normalised(url: str, name: str = "DATABASE_URL", several_want: str = "read-write") -> URL:
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
        several = _hosts(hosts, parsed)
    except Exception:  # noqa: BLE001 - the parser's own text would show the password
        raise StartupError(f"{name} is not a link of the form postgresql://user:password@host/database.") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise StartupError(f"{name} must be a PostgreSQL link: postgresql://user:password@host/database.")
    query = {LIBPQ_TO_ASYNCPG.get(key, key): value for key, value in parsed.query.items() if key not in OURS}
    if len(several) > 1:
        query = {**query, "host": tuple(host.text for host in several)}
        query.pop("port", None)
        query.setdefault("target_session_attrs", several_want)
        parsed = URL.create("postgresql", parsed.username, parsed.password, database=parsed.database)
    if query.get("target_session_attrs", "any") not in SESSION_ATTRIBUTES:
        raise StartupError(f"target_session_attrs in {name} must be one of {', '.join(SESSION_ATTRIBUTES)}.")
    return parsed.set(drivername="postgresql+asyncpg", query={k: v for k, v in query.items() if k is not None})


def hosts_of(url: URL) -> list[Host]:
    """The servers of a normalised link, in its order."""
    return _hosts("", url) or [Host("localhost")]


def where(url: URL) -> str:
    """Hosts, ports and database of `url`, without user and password."""
    return f"{','.join(host.text for host in hosts_of(url))}/{url.database or ''}"


def driver_link(url: URL) -> str:
    """The link as asyncpg itself takes it, but for the hosts, of which it is told one at a time."""
    query = {("sslmode" if key == "ssl" else key): value for key, value in url.query.items()}
    for key in ("host", "port", "target_session_attrs"):
        query.pop(key, None)
    link = URL.create("postgresql", url.username, url.password, database=url.database, query=query)
    return link.render_as_string(hide_password=False)


def _hosts(location: str, parsed: URL) -> list[Host]:
    """Raises `ValueError`."""
    ports = [port for value in _listed(parsed.query.get("port")) for port in value.split(",")]
    if "," in location:
        written = location.split(",")
    elif "host" in parsed.query:
        written = [host for value in _listed(parsed.query["host"]) for host in value.split(",")]
    else:
        return [Host(parsed.host, parsed.port or DEFAULT_PORT)] if parsed.host else []
    if len(ports) not in {0, 1, len(written)}:
        raise ValueError(ports)
    own = parsed.port or DEFAULT_PORT
    return [_host(text, int(ports[index % len(ports)] or own) if ports else own) for index, text in enumerate(written)]


def _host(text: str, port: int) -> Host:
    match = ONE_HOST.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return Host(match["host"].strip("[]") or "localhost", int(match["port"] or port))


def _listed(value: str | tuple[str, ...] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
