"""Four server processes on one database behave as one service."""

import asyncio
import time
from collections.abc import AsyncIterator
from http.client import HTTPException
from pathlib import Path

import asyncpg
import pytest

from containers import Container
from tests.support.helpers import postgres_settings
from tests.support.servers import TestServer, mark

pytestmark = pytest.mark.faults

INSTANCES = 4
LEASE = "SELECT holder FROM leases WHERE name = 'scheduler' AND expires_at > now()"
JOBS = {"clear_expired_cache", "fold_old_transactions", "forget_idempotent_answers", "reset_due_credits"}
DUE = "UPDATE user_credits SET available_credits = 1, last_reset_timestamp = now() - interval '2 days'"


@pytest.fixture
async def instances(tmp_path: Path, empty_database_url: str) -> AsyncIterator[list[TestServer]]:
    """Start four processes together on an empty database."""
    servers = [TestServer(tmp_path, empty_database_url) for _ in range(INSTANCES)]
    try:
        for server in servers:
            await asyncio.to_thread(server.wait_until_ready)
        yield servers
    finally:
        for server in servers:
            server.kill()


def jobs_of(server: TestServer) -> dict[str, object]:
    """Return what a process reports about its jobs."""
    jobs: dict[str, object] = server.call("GET", "/health/detailed")[1]["components"]["jobs"]
    return jobs


def leaders(servers: list[TestServer]) -> list[TestServer]:
    """Return the processes that report to be the leader."""
    return [server for server in servers if jobs_of(server)["leading"]]


def kept(server: TestServer) -> int:
    """Return the number of answers that a process has in memory."""
    return int(server.call("GET", "/health/detailed")[1]["components"]["stale_answers"]["answers"])


async def until_one_leads(servers: list[TestServer], seconds: float) -> TestServer:
    """Wait for the only leader to have run its jobs, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = leaders(servers)
        if len(found) == 1 and set(jobs_of(found[0])) >= JOBS:
            return found[0]
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def test_four_processes_are_one_service(
    instances: list[TestServer], empty_database_url: str, tmp_path: Path
) -> None:
    """One migration, shared answers, cleared everywhere within a second, one leader, replaced within 10 s."""
    connection = await asyncpg.connect(empty_database_url)
    leader = await until_one_leads(instances, 10)
    others = [server for server in instances if server is not leader]
    assert [set(jobs_of(server)) for server in others] == [{"leading"}] * 3  # no job has run there

    answers = [server.ask("one phone for all", "guest")[1] for server in instances]
    assert [answer["metadata"]["charged"] for answer in answers] == [1, 0, 0, 0]
    assert (tmp_path / "asked").read_text().splitlines() == ["one phone for all"]
    assert [kept(server) for server in instances] == [1] * INSTANCES

    container = Container(settings=postgres_settings(empty_database_url))
    await container.query_cache_service().clear_cache()
    cleared = time.monotonic()
    while any(kept(server) for server in instances):
        assert time.monotonic() - cleared < 1
        await asyncio.sleep(0.02)
    assert instances[2].ask("one phone for all", "guest")[1]["metadata"]["charged"] == 1

    before = await connection.fetchval(LEASE)
    await container.credit_service().get_user_credits("auth0|due")
    await connection.execute(f"{DUE} WHERE user_id = 'auth0|due'")
    await connection.execute(
        "INSERT INTO credit_transactions (user_id, transaction_type, amount, description, balance_after)"
        " VALUES ('auth0|due', 'deduct', -49, 'made due', 1)"
    )
    killed = time.monotonic()
    leader.kill()
    follower = await until_one_leads(others, 12)
    assert time.monotonic() - killed < 10
    assert await connection.fetchval(LEASE) not in {before, None}
    resets = "SELECT count(*), sum(amount) FROM credit_transactions WHERE transaction_type = 'reset'"
    async with asyncio.timeout(5):
        while tuple(await connection.fetchrow(resets)) != (1, 49):
            await asyncio.sleep(0.1)
    assert [set(jobs_of(server)) for server in others if server is not follower] == [{"leading"}] * 2
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0
    assert sum("schema_migrated" in server.log.read_text() for server in instances) == 1
    await container.shutdown()
    await connection.close()


async def test_a_hold_left_by_a_killed_leader_comes_back(tmp_path: Path, database_url: str) -> None:
    """The new leader voids it; the repeated question is answered for one credit."""
    query, short = "hang phone", {"CREDIT_HOLD_TTL_SECONDS": "3", "QUERY_TIMEOUT_SECONDS": "2.9"}
    servers = [TestServer(tmp_path, database_url, **short) for _ in range(2)]
    connection = await asyncpg.connect(database_url)
    account = "SELECT available_credits, held_credits FROM user_credits WHERE user_id = 'guest'"
    try:
        for server in servers:
            await asyncio.to_thread(server.wait_until_ready)
        leader = await until_one_leads(servers, 10)
        [follower] = [server for server in servers if server is not leader]
        asking = asyncio.create_task(asyncio.to_thread(leader.ask, query, "guest"))
        async with asyncio.timeout(10):
            while not mark(tmp_path, query).exists():
                await asyncio.sleep(0.01)
        leader.kill()
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], OSError | HTTPException)
        assert tuple(await connection.fetchrow(account)) == (9, 1)
        async with asyncio.timeout(25):
            while tuple(await connection.fetchrow(account)) != (10, 0):
                await asyncio.sleep(0.1)
        status, body, _ = await asyncio.to_thread(follower.ask, query, "guest")
        assert (status, body["metadata"]["charged"], body["metadata"]["available_credits"]) == (200, 1, 9)
        assert tuple(await connection.fetchrow(account)) == (9, 0)
    finally:
        await connection.close()
        for server in servers:
            server.kill()
