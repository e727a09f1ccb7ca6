"""What a production server refuses at startup, and which DSN migrates."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from containers import Container
from shopassist.app import create_app
from shopassist.catalog.importer.importer import load_sample
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.roles import Role, Roles, provision
from shopassist.errors import DatabaseAbsentError, MigrationError, StartupError
from shopassist.ops.doctor import run_checks
from shopassist.ops.startup import prepare
from shopassist.settings import ServerSettings, Settings
from shopassist.settings.database import DatabaseConfig
from tests.support.helpers import execute, postgres_settings, replace_database_name

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


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_cannot_store_every_text_is_refused(encoding: str, server_url: str) -> None:
    """The error names the encoding, before anything is migrated."""
    name = f"test_{uuid4().hex}"
    made = f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
    await execute(server_url, f"CREATE DATABASE {name} {made}")
    url = replace_database_name(server_url, name)
    try:
        with pytest.raises(StartupError, match=f"has the encoding {encoding}, .*ENCODING 'UTF8'"):
            await prepared(url, privileged_role=True)
        assert await migrate.get_current_revision(normalise_dsn(url)) is None
    finally:
        await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


TAKEN = {
    "INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public": "INSERT, UPDATE on admin_audit; .*other tables",
    "ALL ON credit_holds": "DELETE, INSERT, SELECT, UPDATE on credit_holds",
    "INSERT ON consent_events": "INSERT on consent_events",
    "UPDATE ON leases": "UPDATE on leases",
    "SELECT ON products": "SELECT on products",
    "ALL ON ALL TABLES IN SCHEMA public": "permission denied for table alembic_version|other tables",
    "USAGE ON SCHEMA public": "USAGE on the schema public",
}


async def test_a_role_that_may_not_write_is_refused(links: Links) -> None:
    """The error names what is missing, with and without the owner's DSN."""
    await prepared(links.app, links.owner)
    app = normalise_dsn(links.app).username
    for taken, said in TAKEN.items():
        await execute(links.admin, f"REVOKE {taken} FROM {app}")
        for owner in (None, links.owner):
            with pytest.raises(StartupError, match=said):
                await prepared(links.app, owner)
        await execute(links.admin, f"GRANT {taken} TO {app}")
        await prepared(links.app)


async def test_a_database_that_can_only_be_read_is_refused(links: Links) -> None:
    """As if it were absent, because that may end."""
    await prepared(links.app, links.owner)
    app = normalise_dsn(links.app)
    await execute(links.admin, f"ALTER ROLE {app.username} SET default_transaction_read_only = on")
    with pytest.raises(DatabaseAbsentError, match="can only be read"):
        await prepared(links.app)


async def test_a_role_that_loses_rights_is_not_ready(links: Links) -> None:
    """`/health/ready` is 503 as long as they are missing; the process lives on."""
    await prepared(links.app, links.owner)
    app = normalise_dsn(links.app).username
    settings = Settings(database=DatabaseConfig(database_url=SecretStr(links.app)))
    container = Container(settings=settings)
    transport = httpx.ASGITransport(create_app(container))

    async def wait_for(status: int) -> None:
        async with asyncio.timeout(10):
            while (await client.get("/health/ready")).status_code != status:
                await asyncio.sleep(0.05)

    async with (
        transport.app.router.lifespan_context(transport.app),  # type: ignore[attr-defined]
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        for taken in ("INSERT ON credit_transactions", "SELECT ON cache_epochs"):
            await wait_for(200)
            await execute(links.admin, f"REVOKE {taken} FROM {app}")
            await wait_for(503)
            found = {finding.check: finding.observation for finding in await run_checks(settings)}
            assert found["privileges"] == f"the app's role lacks {taken.replace('ON', 'on')}"
            assert (await client.get("/health")).status_code == 200
            await execute(links.admin, f"GRANT {taken} TO {app}")
        await wait_for(200)


async def test_extensions_may_be_in_another_schema(links: Links) -> None:
    """As some hosters have it: tables are migrated, misspelt words found, once the roles may use that schema."""
    await execute(links.admin, 'CREATE SCHEMA "Their ""own"; CREATE EXTENSION pg_trgm SCHEMA "Their ""own"')
    with pytest.raises(StartupError, match='USAGE on the schema Their "own'):
        await prepared(links.app, links.owner)
    connection = await asyncpg.connect(links.admin)
    mark = str(normalise_dsn(links.app).username).removeprefix("app_")
    await provision(connection, Roles(*(Role(f"{part}_{mark}", None) for part in ("owner", "app", "reader"))), {})
    await connection.close()
    await prepared(links.app, links.owner)
    container = Container(settings=postgres_settings(links.app))
    try:
        await load_sample(container.unit_of_work())
        async with container.unit_of_work()() as repositories:
            assert await repositories.catalog.find_corrections(["motorolla"]) == {"motorolla": "motorola"}
    finally:
        await container.shutdown()
