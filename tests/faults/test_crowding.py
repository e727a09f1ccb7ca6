"""Other connections interfere: they hold the pool, lock rows crosswise, take all connections, make writes fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import asyncpg
import pytest

from tests.faults.conftest import Trials
from tests.support.helpers import execute
from tests.support.load import Kind
from tests.support.trial import Trial

pytestmark = pytest.mark.faults

SECONDS = 3
CROSSED = tuple(f"auth0|crossed-{number}" for number in range(4))
MOST_QUESTIONS = 45
"""Questions of one user, who has 50 credits."""

OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shopassist'"
CONFLICTING = """
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.1 THEN
        RAISE EXCEPTION 'another transaction was first' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER conflict BEFORE INSERT OR UPDATE ON user_credits FOR EACH ROW EXECUTE FUNCTION conflict();
CREATE TRIGGER conflict BEFORE INSERT OR UPDATE ON user_consents FOR EACH ROW EXECUTE FUNCTION conflict();
"""
PEACE = "DROP FUNCTION conflict() CASCADE"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Open another connection to the database."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_pool_held(trial: Trials, database: str) -> None:
    """A locked table keeps the whole pool busy: other requests fail in time, and credits are not affected."""
    async with trial(f"pool held by a locked table for {SECONDS} s") as shop:
        with shop.fault():
            async with connected(database) as other, other.transaction():
                await other.execute("LOCK TABLE user_consents")
                await asyncio.sleep(SECONDS)
    paid = [one.answered for one in shop.during() if one.kind is Kind.NEW]
    assert sum(paid) > 0.5 * len(paid)


async def test_connections_taken(trial: Trials, database: str) -> None:
    """Other clients hold every connection that the database allows."""
    async with trial(f"database's connections all taken for {SECONDS} s") as shop:
        with shop.fault():
            async with AsyncExitStack() as stack:
                first = await stack.enter_async_context(connected(database))
                await first.execute(OTHERS)
                while await taken(stack, database):
                    pass
                await asyncio.sleep(SECONDS)


async def taken(stack: AsyncExitStack, url: str) -> bool:
    """Try to take one more connection; return whether it worked."""
    try:
        await stack.enter_async_context(connected(url))
    except asyncpg.TooManyConnectionsError:
        return False
    return True


async def test_deadlocks(trial: Trials, database: str) -> None:
    """Another client locks accounts in the opposite order: no shopper notices the cancelled transactions."""
    async with trial(f"deadlocks forced for {SECONDS} s") as shop, connected(database) as other:
        for who in CROSSED:
            await shop.load.ask(who, f"the first of {who}")
        before = await other.fetchval(DEADLOCKS)
        with shop.fault():
            async with asyncio.TaskGroup() as group:
                group.create_task(lock_crosswise(other, SECONDS))
                asked = [group.create_task(ask_in_a_row(shop, who, SECONDS)) for who in CROSSED]
        taken = dict(await other.fetch("SELECT user_id, count(*) FROM credit_transactions GROUP BY 1"))
        assert {who: taken[who] for who in CROSSED} == {
            who: 2 + task.result() for who, task in zip(CROSSED, asked, strict=True)
        }
        async with asyncio.timeout(10):  # until statistics are written
            while not await other.fetchval(DEADLOCKS) > before:
                await asyncio.sleep(0.1)


async def lock_crosswise(connection: asyncpg.Connection, seconds: float) -> None:
    """Lock accounts in the opposite order of the product, repeatedly."""
    ends = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < ends:
        with suppress(asyncpg.DeadlockDetectedError):
            async with connection.transaction():
                for who in reversed(CROSSED):
                    await connection.execute("SELECT FROM user_credits WHERE user_id = $1 FOR UPDATE", who)
                    await asyncio.sleep(0.01)


async def ask_in_a_row(shop: Trial, who: str, seconds: float) -> int:
    """Ask new questions one after another, each until it is answered; return how many."""
    ends, number = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < ends and number < MOST_QUESTIONS:
        while not (await shop.load.ask(who, f"number {number} of {who}")).answered:
            await asyncio.sleep(0.1)
        number += 1
    return number


async def test_serialization_storm(trial: Trials, database: str) -> None:
    """One of ten written rows fails with 40001: it is retried within the retry budget."""
    async with trial(f"serialization failures for {SECONDS} s") as shop:
        with shop.fault():
            await execute(database, CONFLICTING)
            await asyncio.sleep(SECONDS)
            await execute(database, PEACE)
        assert (await shop.health())["retries"] > 0
