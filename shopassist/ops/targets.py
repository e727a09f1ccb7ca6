"""Finds the database that is backed up and restored: always that of DATABASE_URL."""

from sqlalchemy import URL

from shopassist.db.dsn import build_dsn, get_hosts, get_session_setting, require_session_dsn
from shopassist.db.migrate import connect
from shopassist.errors import BackupError, StartupError
from shopassist.settings import Settings
from shopassist.settings.database import ProvisioningSettings
from shopassist.settings.group import load_settings

MAINTENANCE_DATABASE = "postgres"
"""The database to connect to while others are created, renamed and dropped."""

PLACE_QUERY = "SELECT pg_postmaster_start_time()::text, current_database()::text"
"""An instant that no two servers share, and the database."""


async def find_source(settings: Settings) -> URL:
    """Return the DSN for backups. Raises `BackupError` if it leads to another database, and `StartupError`."""
    link, setting = require_session_dsn(settings), get_session_setting(settings)
    own = _build_own_dsn(settings)
    if setting != "DATABASE_URL" and await _find_name(own, link, setting) != _get_name(link):
        raise BackupError(f"{setting} leads to the database {_get_name(link)}, and DATABASE_URL to another one.")
    return link


async def find_target(settings: Settings) -> URL:
    """Return the DSN of an administrator, or else the one for backups, to the database of DATABASE_URL.

    DATABASE_ADMIN_URL lends its user and its way to the server. Raises `BackupError` if that is another server, and
    `StartupError`.
    """
    link, setting = load_settings(ProvisioningSettings).admin_url, "DATABASE_ADMIN_URL"
    if link is None:
        return await find_source(settings)
    admin = build_dsn(settings, link, setting)
    maintenance = admin.set(database=MAINTENANCE_DATABASE)
    return admin.set(database=await _find_name(_build_own_dsn(settings), maintenance, setting))


def _build_own_dsn(settings: Settings) -> URL:
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    return build_dsn(settings, settings.database.database_url)


async def _find_name(own: URL, other: URL, setting: str) -> str:
    """Return the name of the database of `own`. Raises `BackupError` if the other DSN leads to another server."""
    async with connect(other, setting) as connection:
        place = await connection.fetchrow(PLACE_QUERY)
    if get_hosts(own) == get_hosts(other):
        return _get_name(own)
    async with connect(own) as connection:
        started_at, name = await connection.fetchrow(PLACE_QUERY)
    if place[0] != started_at:
        raise BackupError(f"{setting} leads to another server than DATABASE_URL, which names the database.")
    return str(name)


def _get_name(url: URL) -> str:
    return url.database or url.username or ""
