"""Three roles: what each may do, and what it may not, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.roles import MAINTAIN_SINCE_VERSION, Role, Roles, build_scram_verifier, is_privileged, provision
from shopassist.maintenance.postgres import vacuum_due_tables
from shopassist.ops.db_cli import provision_roles as provisioned_by_command
from shopassist.settings.database import DatabaseConfig, ProvisioningSettings
from tests.support.helpers import execute, postgres_settings

PASSWORD = "a'long %I \\password"  # noqa: S105 - a test's own
TIMEOUTS = {"statement_timeout": "30s", "lock_timeout": "5s"}


@pytest.fixture
def roles() -> Roles:
    """Return role names for one test; one must be quoted."""
    mark = uuid4().hex[:8]
    return Roles(*(Role(f'{part} "{mark}', PASSWORD) for part in ("owner", "app", "reader")))


@pytest.fixture(params=["before the first migration", "after all migrations, twice", "by a hoster's administrator"])
async def provisioned(
    request: pytest.FixtureRequest, empty_database_url: str, database_url: str, roles: Roles
) -> AsyncIterator[str]:
    """Create a migrated database with provisioned roles."""
    is_before = not request.param.startswith("after")
    url = empty_database_url if is_before else database_url
    administrator: dict[str, str] = {}
    if "administrator" in request.param:
        administrator = {"user": f"administrator_{uuid4().hex[:8]}", "password": "administrator"}
        await create_administrator(url, administrator["user"])
    for _ in range(2):
        connection = await asyncpg.connect(url, **administrator)
        await provision(connection, roles, TIMEOUTS)
        await connection.close()
    if is_before:
        await migrate.upgrade(normalise_dsn(url).set(username=roles.owner.name, password=roles.owner.password))
    yield url
    connection = await asyncpg.connect(url)
    for role in (roles.app, roles.reader, roles.owner):
        name = await connection.fetchval("SELECT format('%I', $1::text)", role.name)
        await connection.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
        await connection.execute(f"DROP OWNED BY {name}")
        await connection.execute(f"DROP ROLE {name}")
    await connection.close()


async def create_administrator(url: str, name: str) -> None:
    """Create a role as hosters give it: it owns its database and may create roles, and is no superuser."""
    await execute(url, f"CREATE ROLE {name} LOGIN CREATEROLE CREATEDB PASSWORD 'administrator'")
    await execute(url, f"ALTER DATABASE {url.rpartition('/')[2]} OWNER TO {name}")


async def logged_in(url: str, role: Role) -> asyncpg.Connection:
    """Connect as the role, with its password."""
    return await asyncpg.connect(url, user=role.name, password=role.password)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE credit_transactions",
        "DROP TABLE user_credits",
        "ALTER TABLE credit_transactions DISABLE TRIGGER ALL",
        "CREATE TABLE mine (n int)",
        "UPDATE alembic_version SET version_num = '0000'",
        "UPDATE consent_notices SET version = 2",
        "DELETE FROM consent_notices",
        "UPDATE consent_events SET granted = true",
        "DELETE FROM admin_audit",
        "COPY user_credits TO PROGRAM 'true'",
        "CREATE ROLE another",
        "SET ROLE postgres",
    ],
)
async def test_the_app_cannot(provisioned: str, roles: Roles, statement: str) -> None:
    """The app cannot change the schema, switch rules off, or become another role."""
    connection = await logged_in(provisioned, roles.app)
    with pytest.raises(asyncpg.PostgresError) as failure:
        await connection.execute(statement)
    assert failure.value.sqlstate in {"42501", "22023"}
    await connection.close()


async def test_the_app_can_do_its_work_and_has_its_timeouts(provisioned: str, roles: Roles) -> None:
    """DML on its tables, within the times that its role has."""
    connection = await logged_in(provisioned, roles.app)
    await connection.execute(
        "INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp) "
        "VALUES ('a', true, 10, 10, now())"
    )
    await connection.execute("UPDATE user_credits SET available_credits = 9")
    await connection.execute("INSERT INTO admin_audit (actor, act) VALUES ('a', 'x')")
    await connection.execute(
        "INSERT INTO consent_notices (purpose, version, locale, sha256, text, binding_from) "
        "VALUES ('terms', 1, 'en', encode(sha256('x'), 'hex'), 'x', now())"
    )
    await connection.execute(
        "INSERT INTO consent_events (user_id, is_guest, purpose, granted, notice_id, source) "
        "SELECT 'a', true, 'terms', true, id, 'consents' FROM consent_notices"
    )
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == migrate.list_known_revisions()[-1]
    assert await connection.fetchval("SHOW statement_timeout") == "30s"
    assert not await is_privileged(connection)
    await connection.close()


async def test_the_app_vacuums_its_tables(provisioned: str, roles: Roles) -> None:
    """What is not its own it may vacuum from PostgreSQL 17 on; before that maintenance says who may."""
    connection = await logged_in(provisioned, roles.app)
    await connection.execute("SET client_min_messages = error")
    may = "SELECT has_table_privilege('query_cache', 'MAINTAIN')"
    if connection.get_server_version().major >= MAINTAIN_SINCE_VERSION:
        assert await connection.fetchval(may)
        await connection.execute("VACUUM (ANALYZE) query_cache")
    await connection.close()


async def test_a_role_that_may_not_vacuum_is_told_so(provisioned: str, roles: Roles) -> None:
    """The run says which table it left, and what to do about it; nothing fails."""
    connection = await asyncpg.connect(provisioned)
    name = await connection.fetchval("SELECT format('%I', $1::text)", roles.app.name)
    await connection.execute(f"REVOKE ALL ON query_cache FROM {name}; GRANT SELECT ON query_cache TO {name}")
    await connection.execute("ALTER TABLE query_cache SET (autovacuum_enabled = false)")
    await connection.execute(
        "INSERT INTO query_cache (query_hash, result, cached_at, expires_at) "
        "SELECT md5(n::text), '{}', now(), now() + interval '1 day' FROM generate_series(1, 11000) n; "
        "DELETE FROM query_cache; SELECT pg_stat_force_next_flush()"
    )
    await connection.close()
    link = normalise_dsn(provisioned).set(username=roles.app.name, password=roles.app.password)
    work = await vacuum_due_tables(postgres_settings(link.render_as_string(hide_password=False)))
    assert work.rows == 0
    assert work.note is not None
    assert work.note.startswith("may not vacuum query_cache: run `shopassist db provision`")


async def test_the_reader_only_reads(provisioned: str, roles: Roles) -> None:
    """Every table, and no write."""
    connection = await logged_in(provisioned, roles.reader)
    assert await connection.fetch("SELECT * FROM credit_transactions") == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("DELETE FROM query_cache")
    await connection.close()


async def test_the_owner_migrates_and_what_it_makes_is_given_to_the_app(provisioned: str, roles: Roles) -> None:
    """All the way down and up again, after which the app works as before."""
    connection = await logged_in(provisioned, roles.owner)
    assert await is_privileged(connection)
    await connection.close()
    url = normalise_dsn(provisioned).set(username=roles.owner.name, password=roles.owner.password)
    await migrate.downgrade(url, "base")
    await migrate.upgrade(url)
    await test_the_app_can_do_its_work_and_has_its_timeouts(provisioned, roles)


async def test_strangers_do_not_get_in(provisioned: str, roles: Roles, server_url: str) -> None:
    """A role of the server that was given nothing cannot connect to the database."""
    stranger = Role(f"stranger_{uuid4().hex[:8]}", "secret-of-a-stranger")
    await execute(server_url, f"CREATE ROLE {stranger.name} LOGIN PASSWORD '{stranger.password}'")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await logged_in(provisioned, stranger)
    finally:
        await execute(server_url, f"DROP ROLE {stranger.name}")


async def test_a_password_that_is_not_given_stays(provisioned: str, roles: Roles) -> None:
    """Provisioning again without passwords changes none."""
    connection = await asyncpg.connect(provisioned)
    kept = Roles(*(Role(role.name, None) for role in (roles.owner, roles.app, roles.reader)))
    await provision(connection, kept, TIMEOUTS)
    await connection.close()
    await (await logged_in(provisioned, roles.app)).close()


def test_a_verifier_does_not_hold_the_password() -> None:
    """It is salted, and another each time."""
    assert build_scram_verifier("secret") != build_scram_verifier("secret")
    assert "secret" not in build_scram_verifier("secret")


async def test_the_command_makes_roles_and_shows_new_passwords_once(
    server_url: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it shows is a link that works; the second time there is nothing to show."""
    mark = uuid4().hex[:8]
    names = [f"{part}_{mark}" for part in ("owner", "app", "read")]
    settings = ProvisioningSettings(
        admin_url=SecretStr(database_url), owner_role=names[0], app_role=names[1], read_role=names[2]
    )
    await provisioned_by_command(settings, DatabaseConfig())
    link = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("DATABASE_URL: ")).split()[1]
    connection = await asyncpg.connect(link)
    assert await connection.fetchval("SELECT current_user") == names[1]
    await connection.close()
    await provisioned_by_command(settings, DatabaseConfig())
    assert "postgresql://" not in capsys.readouterr().out
    for name in reversed(names):
        await execute(database_url, f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")
