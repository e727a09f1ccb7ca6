"""Behaviour for callers when a real PostgreSQL fails: killed, frozen, locked, crowded."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from containers import Container
from shopassist.consent.models import UserConsentCreate
from shopassist.credits.ports import Adjustment
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.failures import BusyError, ReadOnlyError, ServerProcess
from shopassist.db.resilience import limit_time
from shopassist.errors import ConsentExistsError, StorageUnavailableError
from shopassist.settings import Settings
from shopassist.settings.database import DatabaseConfig
from shopassist.storage.repositories import Repositories
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import execute, get_port, postgres_settings, replace_database_name, replace_port
from tests.support.proxy import Proxy

KILL = """
SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'shopassist'
"""


@pytest.fixture
async def container(database_url: str) -> AsyncIterator[Container]:
    """Build a container on a real database."""
    container = Container(settings=postgres_settings(database_url))
    yield container
    await container.shutdown()


@asynccontextmanager
async def locked(url: str, statement: str) -> AsyncIterator[None]:
    """Open another transaction for the length of the block."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


async def test_killed_backends_are_not_seen_by_whoever_comes_next(container: Container, database_url: str) -> None:
    """Neither by the ledger nor by a unit of work: a connection that died while idle is replaced."""
    await container.credit_service().get_user_credits("a")
    await container.consent_service().create_consent("a", UserConsentCreate())
    await execute(database_url, KILL)
    assert await container.credit_service().deduct_credit("a")
    assert await container.consent_service().get_consent("a")


TIME_LIMITS = [f"SHOW {name}" for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")]


async def test_time_limits_are_in_force_on_every_connection(container: Container) -> None:
    """Both pools have them: statement, lock (shorter than for a hot statement), and idle transaction."""
    manager = container.database_manager()
    async with manager.engine.connect() as connection:
        shown = [(await connection.execute(text(query))).scalar_one() for query in TIME_LIMITS]
    assert shown == ["30s", "1500ms", "1min"]
    async with manager.direct_pool.acquire() as pooled:
        assert [await pooled.driver.fetchval(query) for query in TIME_LIMITS] == ["30s", "1500ms", "1min"]


async def test_a_locked_account_is_busy_and_not_away(database_url: str) -> None:
    """A lock that is not available in time is 503, and all others are served: the breaker stays closed."""
    config = DatabaseConfig(database_url=SecretStr(database_url), lock_timeout=0.2)
    container = Container(settings=Settings(database=config))
    credits_ = container.credit_service()
    for user in ("a", "b"):
        await credits_.get_user_credits(user)
    async with locked(database_url, "SELECT FROM user_credits WHERE user_id = 'a' FOR UPDATE"):
        for _ in range(5):
            with pytest.raises(BusyError):
                await credits_.deduct_credit("a")
            assert await credits_.deduct_credit("b")
    assert await credits_.deduct_credit("a")
    assert await credits_.check_credits("b") == 45
    await container.shutdown()


async def test_deadlocks_are_done_again(container: Container, database_url: str) -> None:
    """Two units that take two rows crosswise both come to their end, and both have happened."""
    service = container.consent_service()
    for user in ("a", "b"):
        await service.create_consent(user, UserConsentCreate())
    await execute(database_url, "ALTER TABLE user_consents ALTER COLUMN timestamp DROP NOT NULL")
    met = [asyncio.Event(), asyncio.Event()]
    runs = [0, 0]

    async def crosswise(turn: int, first: str, second: str) -> None:
        async def body(work: Repositories) -> None:
            runs[turn] += 1
            await work.consents.update_consent(first, marketing_consent=True)
            met[turn].set()
            await asyncio.wait_for(met[1 - turn].wait(), 5)
            await work.consents.update_consent(second, marketing_consent=True)

        await container.unit_of_work().run(body)

    await asyncio.gather(crosswise(0, "a", "b"), crosswise(1, "b", "a"))
    assert sum(runs) >= 3
    assert all(record.marketing_consent for record in await service.list_consents())


async def test_a_consent_whose_commit_was_cut_is_recorded_once(database_url: str) -> None:
    """The outcome is looked up by the database's own mark; an earlier record is not mistaken for it."""
    async with Proxy(get_port(database_url)).running() as proxy:
        container = Container(settings=postgres_settings(replace_port(database_url, proxy.port)))
        service = container.consent_service()
        with proxy.cutting_after(b"COMMIT;", every=2):
            assert await service.get_consent("a") is None
            created = await service.create_consent("a", UserConsentCreate(marketing_consent=True))
        assert proxy.cuts == 1
        assert await service.list_consents() == [created]
        with proxy.cutting_after(b"COMMIT;", every=1), pytest.raises(ConsentExistsError):
            await service.create_consent("a", UserConsentCreate())
        await container.shutdown()


async def test_a_connection_that_ends_while_it_is_opened_is_an_absent_database(database_url: str) -> None:
    """Hot statements and units of work behave alike: nothing was sent, and callers get no internal error."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"N")  # no encryption here
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    container = Container(settings=postgres_settings(replace_port(database_url, server.sockets[0].getsockname()[1])))
    for asked in (container.credit_service().check_credits("a"), container.consent_service().get_consent("a")):
        with pytest.raises(StorageUnavailableError):
            await asked
    await container.shutdown()
    server.close()


async def test_a_connection_on_which_the_server_said_goodbye_is_replaced(database_url: str) -> None:
    """It is replaced although it is not closed yet."""
    async with Proxy(get_port(database_url)).running() as proxy:
        container = Container(settings=postgres_settings(replace_port(database_url, proxy.port)))
        await container.credit_service().get_user_credits("a")
        await container.consent_service().get_consent("a")
        with proxy.keeping_open():
            await execute(database_url, KILL)
            await asyncio.sleep(0.1)
            assert await container.credit_service().check_credits("a") == 50
            assert await container.credit_service().deduct_credit("a")
            assert await container.consent_service().get_consent("a") is None
        await container.shutdown()


async def test_a_password_that_is_no_longer_right_is_an_absent_database(database_url: str) -> None:
    """It is 503 until the password is right."""
    container = Container(settings=postgres_settings(re.sub(r":[^:@]+@", ":wrong@", database_url)))
    for asked in (container.credit_service().check_credits("a"), container.consent_service().get_consent("a")):
        with pytest.raises(StorageUnavailableError):
            await asked
    await container.shutdown()


async def test_an_adjustment_whose_backend_was_ended_happens_once(container: Container, database_url: str) -> None:
    """Its operation id shows whether it happened."""
    ledger = container.credit_ledger()
    await ledger.get_or_create_account("a", is_guest=False)
    async with locked(database_url, "SELECT FROM user_credits WHERE user_id = 'a' FOR UPDATE"):
        task = asyncio.create_task(ledger.adjust(Adjustment(uuid4(), "a", 7, "a gift", "someone")))
        await asyncio.sleep(0.2)
        await execute(database_url, KILL)
    account = await task
    assert account is not None
    assert account.available_credits == 57


async def test_a_crowded_pool_answers_in_time_and_others_are_served(database_url: str) -> None:
    """A caller that gets no connection is told in time; later ones wait 0.4 s; credits have their own connections.

    The accounts exist already: a new one is created in a unit of work, which would see an erasure of its owner.
    """
    config = DatabaseConfig(database_url=SecretStr(database_url), pool_size=1, max_overflow=0)
    container = Container(settings=Settings(database=config))
    consents, manager = container.consent_service(), container.database_manager()
    await consents.get_consent("a")
    await container.credit_service().get_user_credits("a")
    waits = []
    async with manager.session():
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(StorageUnavailableError):
                await consents.get_consent("a")
            waits.append(time.monotonic() - began)
        assert await container.credit_service().deduct_credit("a")
        with limit_time(0.1), pytest.raises(StorageUnavailableError):
            await consents.get_consent("a")
    assert waits[0] < 2
    assert waits[1] < 0.5
    assert await consents.get_consent("a") is None
    await container.shutdown()


async def test_only_the_backend_that_is_meant_is_ended(container: Container, database_url: str) -> None:
    """After a restart or a promotion another backend with its number and another start time is not ended."""
    await container.credit_ledger().get_or_create_account("a", is_guest=False)
    takes = container.credit_ledger()
    innocent = await asyncpg.connect(database_url)
    query = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    pid, began = await innocent.fetchrow(query)
    operations = {uuid4(): "a"}
    assert await takes.find_committed(operations, ServerProcess(pid, began - timedelta(microseconds=1))) == set()
    assert await innocent.fetchval("SELECT 1") == 1
    await takes.find_committed(operations, ServerProcess(pid, began))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await innocent.fetchval("SELECT 1")


async def test_connections_to_a_server_that_refuses_writes_are_renounced(
    container: Container, database_url: str, server_url: str
) -> None:
    """The new primary is found by connecting again; reads continue meanwhile, and the breaker stays closed."""
    name = database_url.rpartition("/")[2]
    credits_, consents = container.credit_service(), container.consent_service()
    await execute(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    for work in (credits_.deduct_credit("a"), consents.create_consent("a", UserConsentCreate())):
        with pytest.raises(ReadOnlyError):
            await work
    assert await consents.get_consent("a") is None
    assert container.resilience().is_available
    # What is connected stays read-only; only new connections are not.
    await execute(server_url, f"ALTER DATABASE {name} RESET ALL")
    async with asyncio.timeout(5):
        while True:
            try:
                assert await credits_.deduct_credit("a")
                await consents.create_consent("a", UserConsentCreate())
                break
            except ReadOnlyError:
                await asyncio.sleep(0.1)
    assert await credits_.check_credits("a") == 49


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """Start a PostgreSQL that tests may freeze."""
    with run_postgres() as server:
        yield server


async def test_a_frozen_database_is_told_in_time_and_is_whole_again_after(own_server: PostgresServer) -> None:
    """The first caller fails within 2 s, later ones at once; no debit happens twice, and no restart is needed."""
    url = replace_database_name(own_server.url, f"frozen_{uuid4().hex}")
    await execute(own_server.url, f"CREATE DATABASE {url.rpartition('/')[2]}")
    await migrate.upgrade(normalise_dsn(url))
    container = Container(settings=postgres_settings(url))
    credits_, consents = container.credit_service(), container.consent_service()
    await credits_.get_user_credits("a")
    await consents.create_consent("a", UserConsentCreate())
    waits = []

    async def timed(work: object) -> None:
        began = time.monotonic()
        with pytest.raises(StorageUnavailableError):
            await work  # type: ignore[misc]
        waits.append(time.monotonic() - began)

    with own_server.frozen():
        with limit_time(30):
            await asyncio.gather(
                *(timed(credits_.deduct_credit("a")) for _ in range(20)),
                *(timed(consents.get_consent("a")) for _ in range(3)),
            )
        first, waits[:] = max(waits), []
        await timed(credits_.check_credits("a"))
    assert first < 2
    assert waits[0] < 1.2
    began = time.monotonic()
    while time.monotonic() - began < 5:
        try:
            assert await credits_.deduct_credit("a")
            break
        except StorageUnavailableError:
            await asyncio.sleep(0.05)
    assert time.monotonic() - began < 5
    page = await container.audit().reconcile_page()
    assert page.drifts == ()
    assert 50 - 21 <= await credits_.check_credits("a") <= 49
    await container.shutdown()
