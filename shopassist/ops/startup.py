"""What must be true before the first request: settings that hold, a database that runs, a schema that fits."""

import structlog
from pydantic import ValidationError

from shopassist.db.embedded import EmbeddedPostgres
from shopassist.db.manager import normalised
from shopassist.db.migrate import ensure_current, known_revisions
from shopassist.db.ports import UnitOfWork
from shopassist.errors import StartupError
from shopassist.ops.catalog_import import load_sample
from shopassist.settings import Settings, Storage

logger = structlog.get_logger(__name__)


def read_settings() -> Settings:
    """The settings of the environment. Raises `StartupError` that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        if not name:  # a rule about several, whose text names them
            raise StartupError(f"{problem['ctx']['error']}.") from None
        raise StartupError(f"The setting {name} is not valid: {problem['msg']}.") from None


def needs_embedded(settings: Settings) -> bool:
    """Whether state is to be kept in PostgreSQL and nobody named one."""
    return settings.storage.storage is Storage.POSTGRES and settings.database.database_url is None


def with_database(settings: Settings) -> tuple[Settings, EmbeddedPostgres | None]:
    """The settings with a database that runs: the named one, else the embedded one. Raises `StartupError`."""
    if not needs_embedded(settings):
        return settings, None
    embedded = EmbeddedPostgres(settings.database.data_folder)
    return settings.with_embedded(embedded.start()), embedded


async def prepare(settings: Settings, unit_of_work: UnitOfWork) -> None:
    """Bring the schema up to date and, outside production, fill an empty catalogue with the sample.

    Raises `StartupError` and `MigrationError`.
    """
    if settings.storage.storage is Storage.POSTGRES:
        if settings.database.database_url is None:
            raise StartupError("DATABASE_URL is not set.")
        if await ensure_current(normalised(settings.database.database_url.get_secret_value())):
            logger.info("schema_migrated", revision=known_revisions()[-1])
    if settings.fill_with_sample:
        await load_sample(unit_of_work)
