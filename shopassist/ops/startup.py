"""Startup checks: settings are valid, the database runs, the schema is current."""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy import URL

from shopassist.catalog.importer.importer import load_sample
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.database import get_time_limits
from shopassist.db.dsn import build_dsn, find_session_dsn, get_session_setting
from shopassist.db.migrate import connect, ensure_current, list_known_revisions, require_current
from shopassist.db.ports import UnitOfWork
from shopassist.db.roles import is_privileged, is_setting_off
from shopassist.errors import StartupError
from shopassist.metrics import MetricFamily
from shopassist.settings import Settings
from shopassist.settings.database import PoolMode

logger = structlog.get_logger(__name__)

PRIVILEGED_MESSAGE = (
    "DATABASE_URL logs in as a superuser or as the owner of the tables, who could switch the ledger's rules off. "
    "Make the roles with `shopassist db provision` and use the app's, or set DB_ALLOW_PRIVILEGED_ROLE=true."
)

UNLIMITED_MESSAGE = (
    "DB_POOL_MODE=transaction, and DATABASE_URL's role has no {}: run `shopassist db provision`, which sets its limits."
)


class BackgroundService(Protocol):
    """A part of the container that works while the app serves."""

    async def begin(self) -> None:
        """Prepare before the first request. Raises `StartupError`."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Work for the length of the block."""

    def collect_metrics(self) -> Iterable[MetricFamily]:
        """Return the metrics of this part."""


class StartupServices(Protocol):
    """Services of the container that are prepared at startup."""

    def unit_of_work(self) -> UnitOfWork[CatalogRepositories]: ...

    def background_services(self) -> list[BackgroundService]: ...


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


async def prepare_to_serve(settings: Settings, services: StartupServices) -> None:
    """Prepare the database and the background services. Raises `StorageUnavailableError` and what `prepare` raises."""
    await prepare(settings, services.unit_of_work())
    for service in services.background_services():
        await service.begin()


async def _prepare_schema(settings: Settings, url: URL) -> None:
    """Migrate with the owner's DSN or a direct one; if there is none, only check the revision."""
    database = settings.database
    is_strict = settings.server.production and not settings.embedded_database and not database.privileged_role
    is_pooled = database.pool_mode is PoolMode.TRANSACTION
    if is_strict or is_pooled:
        async with connect(url) as connection:
            if is_strict and await is_privileged(connection):
                raise StartupError(PRIVILEGED_MESSAGE)
            if is_pooled and (
                unlimited := [name for name in get_time_limits(database) if await is_setting_off(connection, name)]
            ):
                logger.warning("time_limits_missing", reason=UNLIMITED_MESSAGE.format(", ".join(unlimited)))
    migration_url = find_session_dsn(settings, only_owner=is_strict)
    if migration_url is None:
        await require_current(url)
        return
    before = partial(_back_up_before_migration, settings) if settings.backup.before_migration else None
    if await ensure_current(migration_url, before, get_session_setting(settings)):
        logger.info("schema_migrated", revision=list_known_revisions()[-1])


async def _back_up_before_migration(settings: Settings) -> None:
    from shopassist.ops.backups import back_up  # noqa: PLC0415 - most starts migrate nothing

    manifest = await back_up(settings)
    logger.info("backed_up", name=manifest.name)
