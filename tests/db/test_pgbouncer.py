"""The product behind a real PgBouncer in transaction mode, as the app's own role."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from containers import Container
from shopassist.consent.models import UserConsentCreate
from shopassist.credits.ports import CreditRequest
from shopassist.db import migrate
from shopassist.db.database import get_role_settings
from shopassist.db.dsn import find_session_dsn, normalise_dsn
from shopassist.db.roles import Role, Roles, provision
from shopassist.errors import MigrationError, StartupError
from shopassist.ops.startup import prepare
from shopassist.settings import AssistantSettings, Settings
from shopassist.settings.database import DatabaseConfig, PoolMode
from tests.support.helpers import execute
from tests.support.pgbouncer import SERVER_CONNECTIONS, run_pgbouncer
from tests.support.servers import TestServer

pytestmark = pytest.mark.external

Tell = Callable[..., None]
CALLERS = 20
ROUNDS = 10
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_transaction_isolation")


@dataclass(frozen=True, slots=True)
class Pooled:
    """The app's connection strings through the pooler and past it, and the owner's."""

    url: str
    direct_url: str
    owner_url: str

    def settings(self, **changes: Any) -> Settings:
        """Return settings for the pooler."""
        database = DatabaseConfig(
            database_url=SecretStr(self.url), pool_mode=PoolMode.TRANSACTION, pool_size=CALLERS, **changes
        )
        return Settings(database=database, assistant=AssistantSettings(sample_catalogue=False))


@pytest.fixture
async def pooled(database_url: str) -> AsyncIterator[Pooled]:
    """Create a migrated database with provisioned roles, behind a pooler."""
    mark = uuid4().hex[:8]
    roles = Roles(*(Role(f"{part}_{mark}", uuid4().hex) for part in ("owner", "app", "reader")))
    connection = await asyncpg.connect(database_url)
    await provision(connection, roles, get_role_settings(DatabaseConfig()))
    await connection.close()

    def link(role: Role, of: str = database_url) -> str:
        return f"postgresql://{role.name}:{role.password}@{of.rpartition('@')[2]}"

    with run_pgbouncer(database_url, {roles.app.name: str(roles.app.password)}) as url:
        yield Pooled(url, link(roles.app), link(roles.owner))
    for role in (roles.app, roles.reader, roles.owner):
        await execute(
            database_url,
            f"REASSIGN OWNED BY {role.name} TO CURRENT_USER; DROP OWNED BY {role.name}; DROP ROLE {role.name}",
        )


@pytest.fixture
async def container(pooled: Pooled) -> AsyncIterator[Container]:
    """Build a container behind the pooler."""
    container = Container(settings=pooled.settings())
    yield container
    await container.shutdown()


@pytest.fixture
async def patient_container(pooled: Pooled) -> AsyncIterator[Container]:
    """Build a container whose statements may take 10 seconds, so that a machine that stalls refuses no call."""
    container = Container(settings=pooled.settings(hot_timeout=10.0))
    yield container
    await container.shutdown()


async def test_time_limits_and_isolation_are_the_roles(container: Container) -> None:
    """They apply to every server session, also for hot statements; no prepared statement is kept there."""
    manager = container.database_manager()
    async with manager.session() as session, manager.direct_pool.acquire() as direct:
        through_session = [(await session.execute(text(f"SHOW {name}"))).scalar_one() for name in LIMITS]
        assert through_session == [await direct.driver.fetchval(f"SHOW {name}") for name in LIMITS]
        assert through_session == ["30s", "1500ms", "1min", "read committed"]


async def test_debits_holds_and_consents_side_by_side(patient_container: Container, pooled: Pooled, tell: Tell) -> None:
    """Many more callers than sessions: no error, nothing lost, nothing doubled, and no statement left behind."""
    credits_, ledger = patient_container.credit_service(), patient_container.credit_ledger()
    consents, history = patient_container.consent_service(), Counter[str]()

    async def shop(number: int) -> None:
        user = f"auth0|{number}"
        await consents.create_consent(user, UserConsentCreate())
        for turn in range(ROUNDS):
            assert await credits_.deduct_credit(user)
            hold = uuid4()
            assert (
                await ledger.place_hold(CreditRequest(hold, user, is_guest=False, question_hash=f"{turn:064}"))
            ).granted
            assert await ledger.void(hold, user)
            assert (await consents.get_consent(user)) is not None
        history[user] = -sum(row.amount for row in await credits_.get_user_transactions(user) if row.amount < 0)

    await asyncio.gather(*(shop(number) for number in range(CALLERS)))
    assert set(history.values()) == {ROUNDS}
    assert {await credits_.check_credits(f"auth0|{number}") for number in range(CALLERS)} == {50 - ROUNDS}
    report = await patient_container.ledger_reconciliation().verify()
    assert report is not None
    assert (report.accounts, report.drifting_accounts) == (CALLERS, 0)
    assert patient_container.resilience().get_counters()["opened"] == 0
    connection = await asyncpg.connect(pooled.direct_url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()"
    assert 0 < await connection.fetchval(query) <= SERVER_CONNECTIONS
    await connection.close()
    tell("services through PgBouncer", operations=CALLERS * (ROUNDS * 4 + 2), errors=0, drifting_accounts=0)


async def test_a_taken_row_is_busy_and_not_away(container: Container, pooled: Pooled) -> None:
    """The role's limit for locks is below that of a hot statement, so the breaker stays closed."""
    credits_ = container.credit_service()
    await credits_.get_user_credits("a")
    locker = await asyncpg.connect(pooled.direct_url)
    async with locker.transaction():
        await locker.execute("SELECT FROM user_credits WHERE user_id = 'a' FOR UPDATE")
        outcome = (await asyncio.gather(credits_.deduct_credit("a"), return_exceptions=True))[0]
        assert type(outcome).__name__ == "BusyError"
        assert await credits_.deduct_credit("b")
    await locker.close()
    assert await credits_.deduct_credit("a")


async def test_migrations_go_past_the_pooler(pooled: Pooled) -> None:
    """They use the direct or the owner's connection string; without either the revision is only checked."""
    newest = migrate.list_known_revisions()[-1]
    before = migrate.list_known_revisions()[-2]
    owner = {"migration_url": SecretStr(pooled.owner_url)}
    await migrate.downgrade(normalise_dsn(pooled.owner_url), before)
    without, direct = Container(settings=pooled.settings()), Container(settings=pooled.settings(**owner))
    with pytest.raises(MigrationError, match=before):
        await prepare(without.settings(), without.unit_of_work())
    await asyncio.gather(*(prepare(direct.settings(), direct.unit_of_work()) for _ in range(3)))
    await prepare(without.settings(), without.unit_of_work())
    assert await migrate.get_current_revision(normalise_dsn(pooled.url)) == newest
    assert find_session_dsn(pooled.settings(direct_url=SecretStr(pooled.direct_url))) == normalise_dsn(
        pooled.direct_url
    )
    for container in (without, direct):
        await container.shutdown()


@pytest.mark.timeout(180)
async def test_questions_over_http_from_two_processes(tmp_path: Path, pooled: Pooled, tell: Tell) -> None:
    """Every one is answered, and paid for exactly once; jobs run, and both processes stop as they should."""
    patient = {"DB_HOT_TIMEOUT": "10"}  # a machine that stalls for a moment is no reason to refuse
    environment = {"DB_POOL_MODE": "transaction", "DATABASE_DIRECT_URL": pooled.direct_url, **patient}
    servers = [TestServer(tmp_path, pooled.url, **environment) for _ in range(2)]
    statuses: Counter[int] = Counter()
    try:
        for server in servers:
            await asyncio.to_thread(server.wait_until_ready, 90)

        async def shop(client: httpx.AsyncClient, number: int) -> None:
            guest = {"X-Session-ID": f"guest-{number}"}
            for turn in range(5):
                answer = await client.post("/api/query", json={"query": f"phone {number} {turn}"}, headers=guest)
                statuses[answer.status_code] += 1
                assert answer.status_code == 200, answer.text
                assert answer.json()["metadata"]["charged"] == 1, answer.text
            for path in ("/api/user/credits", "/api/user/credits/transactions", "/health/detailed"):
                answer = await client.get(path, headers=guest)
                statuses[answer.status_code] += 1

        first, second = (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=30) for server in servers
        )
        async with first, second:
            await asyncio.gather(*(shop((first, second)[number % 2], number) for number in range(CALLERS)))
        assert [await asyncio.to_thread(server.stop) for server in servers] == [0, 0]
    finally:
        for server in servers:
            server.kill()
    assert statuses == {200: CALLERS * 8}
    container = Container(settings=pooled.settings())
    assert {await container.credit_service().check_credits(f"guest-{n}") for n in range(CALLERS)} == {5}
    report = await container.ledger_reconciliation().verify()
    await container.shutdown()
    assert report is not None
    assert (report.accounts, report.drifting_accounts) == (CALLERS, 0)
    tell("HTTP through PgBouncer", requests=CALLERS * 8, errors=0, drifting_accounts=report.drifting_accounts)


@pytest.mark.parametrize(
    ("mode", "parameters", "said"),
    [
        (PoolMode.SESSION, "?pgbouncer=true&connection_limit=1", "refuses [a-z_]+, .*: set DB_POOL_MODE to"),
        (PoolMode.TRANSACTION, "?foo=1", "refuses the parameter foo in DATABASE_URL"),
    ],
)
async def test_what_the_pooler_refuses_is_named(pooled: Pooled, mode: PoolMode, parameters: str, said: str) -> None:
    """Instead of a database that cannot be reached."""
    config = DatabaseConfig(database_url=SecretStr(pooled.url + parameters), pool_mode=mode)
    container = Container(settings=Settings(database=config))
    with pytest.raises(StartupError, match=said):
        await prepare(container.settings(), container.unit_of_work())
    await container.shutdown()


async def test_a_poolers_link_of_a_hoster_works(pooled: Pooled) -> None:
    """With the parameters that Prisma's users have in it."""
    link = f"{pooled.url}?pgbouncer=true&connection_limit=1&pool_timeout=0&schema=public"
    settings = replace(pooled, url=link).settings()
    container = Container(settings=settings)
    await prepare(settings, container.unit_of_work())
    await container.shutdown()
