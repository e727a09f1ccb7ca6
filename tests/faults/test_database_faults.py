"""PostgreSQL killed, frozen and read-only, under 200 requests a second."""

import asyncio
import os

import pytest

from tests.faults.conftest import Trials
from tests.support.databases import PostgresServer
from tests.support.helpers import execute

pytestmark = pytest.mark.faults

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "10"))


@pytest.mark.timeout(60 + 15 * ROUNDS)
async def test_killed(trial: Trials, postgres_server: PostgresServer) -> None:
    """After repeated SIGKILL acknowledged writes are there, and service recovers soon each time."""
    async with trial(f"PostgreSQL killed, {ROUNDS} times") as shop:
        for _ in range(ROUNDS):
            with shop.fault():
                await asyncio.to_thread(postgres_server.kill)
                await asyncio.sleep(1)
                await asyncio.to_thread(postgres_server.start)
            await shop.recovered()


async def test_frozen(trial: Trials, postgres_server: PostgresServer) -> None:
    """SIGSTOP for three seconds: no caller waits that long, and statements that resume do not take effect twice."""
    async with trial("PostgreSQL frozen for 3 s") as shop:
        with shop.fault(), postgres_server.frozen():
            await asyncio.sleep(3)


async def test_read_only(trial: Trials, postgres_server: PostgresServer) -> None:
    """Reads are served, writes are refused."""
    async with trial("PostgreSQL read-only for 3 s") as shop:
        with shop.fault():
            await configured(postgres_server, "SET default_transaction_read_only = on")
            await asyncio.sleep(3)
            await configured(postgres_server, "RESET default_transaction_read_only")


async def configured(server: PostgresServer, change: str) -> None:
    """Change a setting of the running server."""
    await execute(server.url, f"ALTER SYSTEM {change}")
    await execute(server.url, "SELECT pg_reload_conf()")
