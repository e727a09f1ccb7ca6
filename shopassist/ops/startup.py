"""Starts the database of the settings, and checks and migrates its schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import asyncpg
import structlog
from sqlalchemy import URL

from shopassist.catalog.importer.importer import load_sample
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.database import get_connect_options, get_time_limits
from shopassist.db.dsn import build_dsn, find_session_dsn, format_hosts_and_database, get_session_setting
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.db.migrate import connect, ensure_current, list_known_revisions, require_current
from shopassist.db.ports import UnitOfWork
from shopassist.db.roles import MISSING_SCHEMAS_QUERY, find_missing_privileges, is_privileged, is_setting_off
from shopassist.errors import DatabaseAbsentError, StartupError
from shopassist.settings import Settings, Storage, StorageSettings, read_settings
from shopassist.settings.database import PoolMode

logger = structlog.get_logger(__name__)

PRIVILEGED_MESSAGE = (
    "DATABASE_URL logs in as a superuser or as the owner of the tables, who could switch the ledger's rules off. "
    "Make the roles with `shopassist db provision` and use the app's, or set DB_ALLOW_PRIVILEGED_ROLE=true."
)

MISSING_PRIVILEGES_MESSAGE = (
    "DATABASE_URL's role lacks rights ({}): make the roles with `shopassist db provision` and use the app's, "
    "or grant them."
)

ENCODING = "UTF8"

UNLIMITED_MESSAGE = (
    "DB_POOL_MODE=transaction, and DATABASE_URL's role has no {}: run `shopassist db provision`, which sets its limits."
)


def start_database(settings: Settings) -> tuple[Settings, EmbeddedPostgres | None]:
    """Start the embedded database if DATABASE_URL is not set; return settings with a DSN. Raises `StartupError`."""
    if not settings.storage.has_database or settings.database.database_url is not None:
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


async def prepare(settings: Settings, unit_of_work: UnitOfWork[CatalogRepositories]) -> None:
    """Migrate the schema and, outside production, load the sample into an empty catalogue.

    Raises `StartupError` and `MigrationError`.
    """
    if settings.storage.has_database:
        if settings.database.database_url is None:
            raise StartupError("DATABASE_URL is not set.")
        await _prepare_schema(settings, build_dsn(settings, settings.database.database_url))
    if settings.fill_with_sample:
        await load_sample(unit_of_work)


async def prepare_to_serve(settings: Settings, container: Any) -> None:
    """Prepare the database and the background services. Raises `StorageUnavailableError` and what `prepare` raises."""
    await prepare(settings, container.unit_of_work())
    for service in container.background_services():
        await service.begin()


async def _prepare_schema(settings: Settings, url: URL) -> None:
    """Migrate with the owner's DSN or a direct one; if there is none, only check the revision.

    Check before that what no migration can change, and after it the rights on the tables.
    """
    database = settings.database
    is_strict = settings.server.production and not settings.embedded_database and not database.privileged_role
    is_pooled = database.pool_mode is PoolMode.TRANSACTION
    async with connect(url, server_settings=get_connect_options(database, False)["server_settings"]) as connection:
        await _require_writable_utf8(connection, url)
        if is_strict and await is_privileged(connection):
            raise StartupError(PRIVILEGED_MESSAGE)
        if is_pooled and (
            unlimited := [name for name in get_time_limits(database) if await is_setting_off(connection, name)]
        ):
            logger.warning("time_limits_missing", reason=UNLIMITED_MESSAGE.format(", ".join(unlimited)))
    migration_url = find_session_dsn(settings, only_owner=is_strict)
    if migration_url is None:
        await require_current(url)
    else:
        before = partial(_back_up, settings) if settings.backup.before_migration else None
        if await ensure_current(migration_url, before, get_session_setting(settings)):
            logger.info("schema_migrated", revision=list_known_revisions()[-1])
    await require_privileges(url)


async def require_privileges(url: URL) -> None:
    """Raise `StartupError` if the app's role may not do the work of a server."""
    async with connect(url) as connection:
        if missing := await find_missing_privileges(connection.fetchval):
            raise StartupError(MISSING_PRIVILEGES_MESSAGE.format(missing))


async def _require_writable_utf8(connection: asyncpg.Connection, url: URL) -> None:
    """Raise `StartupError` for a database that cannot store every text or be used, and one for a standby.

    The latter is a `DatabaseAbsentError`, because the standby may be promoted.
    """
    where = format_hosts_and_database(url)
    encoding = await connection.fetchval("SELECT current_setting('server_encoding')")
    if encoding != ENCODING:
        raise StartupError(
            f"The database at {where} has the encoding {encoding}, which cannot store every text: make one with "
            f"CREATE DATABASE … ENCODING '{ENCODING}' TEMPLATE template0, and move the data there."
        )
    if missing := await connection.fetchval(MISSING_SCHEMAS_QUERY):
        raise StartupError(MISSING_PRIVILEGES_MESSAGE.format(missing))
    if await connection.fetchval("SELECT current_setting('transaction_read_only') = 'on'"):
        raise DatabaseAbsentError(
            f"The database at {where} can only be read: it is a standby, or default_transaction_read_only is on."
        )


async def _back_up(settings: Settings) -> None:
    from shopassist.ops.backups import back_up  # noqa: PLC0415 - most starts migrate nothing

    manifest = await back_up(settings)
    logger.info("backed_up", name=manifest.name)
