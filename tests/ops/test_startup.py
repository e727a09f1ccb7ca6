"""What a production server refuses at startup, and which DSN migrates."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from containers import Container
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.roles import Role, Roles, provision
from shopassist.errors import MigrationError, StartupError
from shopassist.ops.startup import prepare
from shopassist.settings import ServerSettings, Settings
from shopassist.settings.database import DatabaseConfig
from tests.support.helpers import execute

PASSWORD = "twelve letters"  # noqa: S105 - a test's own


@dataclass(frozen=True, slots=True)
class Links:
    """DSNs of one database with three roles."""

    admin: str
    owner: str
    app: str


@pytest.fixture
async def links(empty_database_url: str) -> AsyncIterator[Links]:
    """Return the DSNs of an empty database with its roles."""
    mark = uuid4().hex[:8]
    roles = Roles(*(Role(f"{part}_{mark}", PASSWORD) for part in ("owner", "app", "reader")))
    connection = await asyncpg.connect(empty_database_url)
    await provision(connection, roles, {})
    await connection.close()

    def link(role: Role) -> str:
        url: URL = normalise_dsn(empty_database_url).set(username=role.name, password=role.password)
        return url.set(drivername="postgresql").render_as_string(hide_password=False)

    yield Links(empty_database_url, link(roles.owner), link(roles.app))
    for role in (roles.app, roles.reader, roles.owner):
        await execute(empty_database_url, f"DROP OWNED BY {role.name} CASCADE; DROP ROLE {role.name}")


async def prepared(url: str, migration_url: str | None = None, **database: bool) -> None:
    """Prepare a server in production."""
    owner = SecretStr(migration_url) if migration_url else None
    settings = Settings(
        database=DatabaseConfig(database_url=SecretStr(url), migration_url=owner, **database),  # type: ignore[arg-type]
        server=ServerSettings(environment="production"),
    )
    container = Container(settings=settings)
    try:
        await prepare(settings, container.unit_of_work())
    finally:
        await container.shutdown()


async def test_a_superuser_is_refused_unless_told(links: Links) -> None:
    """The error says what to do."""
    with pytest.raises(StartupError, match="db provision"):
        await prepared(links.admin)
    await prepared(links.admin, privileged_role=True)
    assert await migrate.get_current_revision(normalise_dsn(links.admin)) == migrate.list_known_revisions()[-1]


async def test_the_owner_migrates_for_the_app(links: Links) -> None:
    """The owner's DSN migrates, the app's serves."""
    with pytest.raises(MigrationError, match="DATABASE_MIGRATION_URL"):
        await prepared(links.app)
    await prepared(links.app, links.owner)
    await prepared(links.app)
    with pytest.raises(StartupError, match="owner of the tables"):
        await prepared(links.owner)


async def test_a_schema_that_is_behind_is_refused(links: Links) -> None:
    """Without the owner's DSN the schema is not changed."""
    await migrate.upgrade(normalise_dsn(links.owner))
    await migrate.downgrade(normalise_dsn(links.owner), "-1")
    with pytest.raises(MigrationError, match=migrate.list_known_revisions()[-1]):
        await prepared(links.app)
    assert await migrate.get_current_revision(normalise_dsn(links.app)) == migrate.list_known_revisions()[-2]
