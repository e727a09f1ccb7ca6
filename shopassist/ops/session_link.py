"""Links as the settings say they are protected, and the one for what needs a session of its own."""

from pydantic import SecretStr
from sqlalchemy import URL

from shopassist.db.links import normalised
from shopassist.db.tls import require_choice, secured
from shopassist.errors import StartupError
from shopassist.settings import PoolMode, Settings


def protected(settings: Settings, link: SecretStr, name: str = "DATABASE_URL") -> URL:
    """The link of the setting `name`, protected as the settings say. Raises `StartupError`."""
    url = secured(normalised(link.get_secret_value()), settings.database, name)
    if settings.server.production and not settings.embedded_database:
        require_choice(url, name)
    return url


def session_link(settings: Settings, only_owner: bool = False) -> URL | None:
    """The owner's link, else, unless `only_owner`, the app's past any pooler; None where there is none.

    For migrations, their lock, and backups. Raises `StartupError`.
    """
    database = settings.database
    if database.migration_url is not None:
        return protected(settings, database.migration_url, "DATABASE_MIGRATION_URL")
    if only_owner:
        return None
    if database.direct_url is not None:
        return protected(settings, database.direct_url, "DATABASE_DIRECT_URL")
    if database.pool_mode is PoolMode.TRANSACTION or database.database_url is None:
        return None
    return protected(settings, database.database_url)


def required_session_link(settings: Settings) -> URL:
    """The link of `session_link`. Raises `StartupError` when there is none."""
    link = session_link(settings)
    if link is not None:
        return link
    if settings.database.database_url is None:
        raise StartupError("STORAGE=memory has no database.")
    raise StartupError("DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this.")
