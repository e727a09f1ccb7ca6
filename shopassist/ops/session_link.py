"""The link for what needs a session of its own: migrations, their lock, backups."""

from sqlalchemy import URL

from shopassist.db.links import normalised
from shopassist.errors import StartupError
from shopassist.settings import DatabaseConfig, PoolMode


def session_link(database: DatabaseConfig, only_owner: bool = False) -> URL | None:
    """The owner's link, else, unless `only_owner`, the app's past any pooler; None where there is none."""
    if database.migration_url is not None:
        return normalised(database.migration_url.get_secret_value(), "DATABASE_MIGRATION_URL")
    if only_owner:
        return None
    if database.direct_url is not None:
        return normalised(database.direct_url.get_secret_value(), "DATABASE_DIRECT_URL")
    if database.pool_mode is PoolMode.TRANSACTION or database.database_url is None:
        return None
    return normalised(database.database_url.get_secret_value())


def required_session_link(database: DatabaseConfig) -> URL:
    """The link of `session_link`. Raises `StartupError` when there is none."""
    link = session_link(database)
    if link is not None:
        return link
    if database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    raise StartupError("DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this.")
