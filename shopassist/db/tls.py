"""How the way to the database is protected: TLS with libpq's modes, carried by the link itself.

Every connection is made of a link (engines, migrations, roles, the command line), so what a link carries holds for all.
"""

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import certifi
from sqlalchemy import URL

from shopassist.db.links import hosts_of
from shopassist.errors import StartupError
from shopassist.settings import DatabaseConfig, SslMode

SYSTEM = "system"
VERIFYING = {SslMode.VERIFY_CA, SslMode.VERIFY_FULL}
PLAIN_SERVER = "rejected SSL upgrade"
"""asyncpg's own words; it has no class for it."""


def secured(url: URL, config: DatabaseConfig, name: str = "DATABASE_URL") -> URL:
    """The normalised link `url` of the setting `name`, with the mode and the certificates of the settings.

    Raises `StartupError` where both say different things, and where what is to be verified with cannot be used.
    """
    mode = _one_of(name, "sslmode", url.query.get("ssl"), "DB_SSL_MODE", config.ssl_mode)
    given = _one_of(name, "sslrootcert", url.query.get("sslrootcert"), "DB_SSL_ROOT_CERT", config.ssl_root_cert)
    if mode is not None and mode not in set(SslMode):
        raise StartupError(f"sslmode in {name} must be one of {', '.join(SslMode)}.")
    if mode in VERIFYING and given is None and not (Path.home() / ".postgresql" / "root.crt").exists():
        raise StartupError(
            f"DB_SSL_ROOT_CERT is not set, and {mode} needs it: the file of the certificate of the authority that the "
            f"database's is from, or `{SYSTEM}` for the authorities that this machine knows."
        )
    authority = None if given is None else _usable(given)
    told = {"ssl": None if mode is None else str(mode), "sslrootcert": authority}
    query = {**url.query, **{key: value for key, value in told.items() if value is not None}}
    return url.set(query=query)


def _one_of(name: str, parameter: str, in_link: Any, setting: str, value: str | None) -> str | None:
    if in_link is not None and value is not None and in_link != value:
        raise StartupError(f"{setting} and {parameter} in {name} say different things: set one of them.")
    found = value if in_link is None else in_link
    return None if found is None else str(found)


def _usable(authority: str) -> str:
    file = (ssl.get_default_verify_paths().cafile or certifi.where()) if authority == SYSTEM else authority
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise StartupError(f"DB_SSL_ROOT_CERT cannot be used: {reason}.") from None
    return file


def require_choice(url: URL, name: str = "DATABASE_URL") -> None:
    """Refuse a link to another machine of which nobody said how it is protected. Raises `StartupError`."""
    if "ssl" not in url.query and not is_local(url):
        raise StartupError(
            f"{name} leads to another machine, and nothing says how the way there is protected. Set DB_SSL_MODE to "
            "verify-full (with DB_SSL_ROOT_CERT), or to disable on a network that nobody else is on."
        )


def is_local(url: URL) -> bool:
    """Whether a normalised link stays on this machine."""
    return all(_is_local_host(host.name) for host in hosts_of(url))


def _is_local_host(name: str) -> bool:
    if name.startswith(("/", "@")) or name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_plain(url: URL) -> bool:
    """Whether a link forbids TLS."""
    return url.query.get("ssl") == SslMode.DISABLE


def complaint(error: BaseException) -> str | None:
    """What is wrong with the server's certificate, or its want of one; None for errors of other kinds.

    A certificate that does not hold is no server that is away: waiting for it to come back would be in vain.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"shows a certificate that does not hold: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"cannot be spoken to over TLS: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"
    if isinstance(error, ConnectionError) and PLAIN_SERVER in str(error):
        return "does not speak TLS, which DB_SSL_MODE or its link asks for"
    return None
