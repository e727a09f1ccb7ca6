"""What must be true before the first request: settings that hold, a database that runs, a schema that fits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import URL

from shopassist.db.embedded import EmbeddedPostgres
from shopassist.db.manager import time_limits
from shopassist.db.migrate import connected, ensure_current, known_revisions, require_current
from shopassist.db.ports import UnitOfWork
from shopassist.db.postgres.roles import is_off, is_privileged
from shopassist.db.redis.link import link_to
from shopassist.db.rollout.control import Rollout
from shopassist.errors import StartupError
from shopassist.ops.catalog_import import load_sample
from shopassist.ops.session_link import protected, session_link
from shopassist.settings import PoolMode, Settings, Storage, StorageSettings

PRIVILEGED = (
    "DATABASE_URL logs in as a superuser or as the owner of the tables, who could switch the ledger's rules off. "
    "Make the roles with `shopassist db provision` and use the app's, or set DB_ALLOW_PRIVILEGED_ROLE=true."
)

UNLIMITED = (
    "DB_POOL_MODE=transaction, and DATABASE_URL's role has no {}: run `shopassist db provision`, which sets its limits."
)

Read = TypeVar("Read")


class PreparedServices(Protocol):
    """What preparing takes from the container."""

    def unit_of_work(self) -> UnitOfWork: ...

    def rollout(self) -> Rollout | None: ...


logger = structlog.get_logger(__name__)


def read_settings() -> Settings:
    """The settings of the environment. Raises `StartupError` that names the variable."""
    settings = said_plainly(Settings)
    link_to(settings.shared_cache_url)  # which nobody asks for before the first question
    return settings


def said_plainly(read: Callable[[], Read]) -> Read:
    """What `read` makes of the environment. Raises `StartupError` that names the variable, never with its value."""
    try:
        return read()
    except SettingsError as error:
        raise StartupError(f"{error}.") from None
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        name = ".".join(str(part) for part in problem["loc"])
        if not name:  # a rule about several, whose text names them
            raise StartupError(f"{problem['ctx']['error']}.") from None
        raise StartupError(f"The setting {name} is not valid: {problem['msg']}.") from None


def needs_embedded(settings: Settings) -> bool:
    """Whether state is to be kept in PostgreSQL and nobody named one."""
    return settings.storage.has_database and settings.database.database_url is None


def with_database(settings: Settings) -> tuple[Settings, EmbeddedPostgres | None]:
    """The settings with a database that runs: the named one, else the embedded one. Raises `StartupError`."""
    if not needs_embedded(settings):
        return settings, None
    embedded = EmbeddedPostgres(settings.database.data_folder)
    return settings.with_embedded(embedded.start()), embedded


@contextmanager
def running_database() -> Iterator[Settings]:
    """The settings with a database that runs, embedded unless DATABASE_URL names one. Raises `StartupError`.

    Whoever works on it sees what is in PostgreSQL alone: the memory of a rollout is the server's own.
    """
    settings, embedded = with_database(read_settings())
    if settings.storage.storage is Storage.ROLLOUT:
        settings = settings.model_copy(update={"storage": StorageSettings(storage=Storage.POSTGRES)})
    try:
        yield settings
    finally:
        if embedded:
            embedded.stop()


async def prepare(settings: Settings, unit_of_work: UnitOfWork) -> None:
    """Bring the schema up to date and, outside production, fill an empty catalogue with the sample.

    Raises `StartupError` and `MigrationError`.
    """
    if settings.storage.has_database:
        if settings.database.database_url is None:
            raise StartupError("DATABASE_URL is not set.")
        await _prepare_schema(settings, protected(settings, settings.database.database_url))
    if settings.fill_with_sample:
        await load_sample(unit_of_work)


async def prepare_to_serve(settings: Settings, services: PreparedServices) -> None:
    """`prepare`, and begin the rollout, where there is one. Raises `StorageUnavailableError` besides."""
    await prepare(settings, services.unit_of_work())
    if (rollout := services.rollout()) is not None:
        await rollout.begin()


async def _prepare_schema(settings: Settings, url: URL) -> None:
    """Migrate by the owner's link, else past any pooler; who may not, or cannot, only checks the revision."""
    database = settings.database
    guarded = settings.server.production and not settings.embedded_database and not database.privileged_role
    pooled = database.pool_mode is PoolMode.TRANSACTION
    if guarded or pooled:
        async with connected(url) as connection:
            if guarded and await is_privileged(connection):
                raise StartupError(PRIVILEGED)
            if pooled and (unlimited := [name for name in time_limits(database) if await is_off(connection, name)]):
                logger.warning("time_limits_missing", reason=UNLIMITED.format(", ".join(unlimited)))
    migration_url = session_link(settings, only_owner=guarded)
    if migration_url is None:
        await require_current(url)
        return
    before = partial(_back_up, settings) if settings.backup.before_migration else None
    if await ensure_current(migration_url, before):
        logger.info("schema_migrated", revision=known_revisions()[-1])


async def _back_up(settings: Settings) -> None:
    from shopassist.ops.backup.configured import backed_up  # noqa: PLC0415 - most starts migrate nothing

    made = await backed_up(settings)
    logger.info("backed_up", name=made.name)
