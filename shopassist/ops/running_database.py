"""The database of the settings, with an embedded server started where DATABASE_URL is not set."""

from collections.abc import Iterator
from contextlib import contextmanager

from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.settings import Settings, Storage, StorageSettings, read_settings


def needs_embedded_database(settings: Settings) -> bool:
    """Return whether data is stored in PostgreSQL and DATABASE_URL is not set."""
    return settings.storage.has_database and settings.database.database_url is None


def start_database(settings: Settings) -> tuple[Settings, EmbeddedPostgres | None]:
    """Start the embedded database if DATABASE_URL is not set; return settings with a DSN. Raises `StartupError`."""
    if not needs_embedded_database(settings):
        return settings, None
    embedded = EmbeddedPostgres(settings.database.data_folder)
    return settings.with_embedded(embedded.start()), embedded


@contextmanager
def running_database() -> Iterator[Settings]:
    """Run the database for the block, as `start_database` does. Raises `StartupError`.

    During a rollout the settings are those of PostgreSQL, because only the server sees its memory.
    """
    settings, embedded = start_database(read_settings())
    if settings.storage.storage is Storage.ROLLOUT:
        settings = settings.model_copy(update={"storage": StorageSettings(storage=Storage.POSTGRES)})
    try:
        yield settings
    finally:
        if embedded:
            embedded.stop()
