"""Network faults: delay, silence, cuts, half-open connections, and a commit with a lost acknowledgement."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.faults.conftest import Trials
from tests.support.databases import PostgresServer
from tests.support.proxy import Proxy

pytestmark = pytest.mark.faults

SECONDS = 3
COMMIT = b"COMMIT;"
SETTLE = b"Credit deducted for message"
"""Text in the message that settles a question."""


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[Proxy]:
    """Start a proxy in front of the database."""
    async with Proxy(postgres_server.port).running() as proxy:
        yield proxy


async def test_delay(trial: Trials, proxy: Proxy) -> None:
    """A delay of 0.1 s in each direction: all requests are served, more slowly."""
    async with trial(f"each round trip 0.1 s longer for {SECONDS} s", proxy.port) as shop:
        with shop.fault(), proxy.delaying(0.05):
            await asyncio.sleep(SECONDS)


async def test_black_hole(trial: Trials, proxy: Proxy) -> None:
    """Nothing arrives, then everything at once: abandoned statements do not take effect additionally."""
    async with trial(f"black hole for {SECONDS} s", proxy.port) as shop:
        with shop.fault(), proxy.silent():
            await asyncio.sleep(SECONDS)


async def test_refused(trial: Trials, proxy: Proxy) -> None:
    """Existing and new connections are cut."""
    async with trial(f"connections cut and refused for {SECONDS} s", proxy.port) as shop:
        with shop.fault(), proxy.refusing():
            await asyncio.sleep(SECONDS)


async def test_half_close(trial: Trials, proxy: Proxy) -> None:
    """The database closes its sending half, five times."""
    async with trial("connections half-closed, 5 times", proxy.port) as shop:
        with shop.fault():
            for _ in range(5):
                proxy.close_towards_product()
                await asyncio.sleep(SECONDS / 5)


async def test_half_open(trial: Trials, proxy: Proxy) -> None:
    """The database's end disappears silently: one time-out invalidates all connections, not one time-out each."""
    async with trial("connections half-open", proxy.port) as shop:
        with shop.fault():
            proxy.lose_database()


async def test_cut_after_commit(trial: Trials, proxy: Proxy) -> None:
    """The reply to a commit is lost: its outcome is looked up, and the write is not repeated."""
    async with trial("every third answer to a commit cut off", proxy.port) as shop:
        with shop.fault(), proxy.cutting_after(COMMIT, every=3):
            await asyncio.sleep(SECONDS)
    assert proxy.cuts > 0


async def test_cut_after_settlement(trial: Trials, proxy: Proxy) -> None:
    """The reply to a settlement is lost: the charged caller gets the answer and is not charged again."""
    async with trial("every third answer to a settlement cut off", proxy.port) as shop:
        with shop.fault(), proxy.cutting_after(SETTLE, every=3):
            await asyncio.sleep(SECONDS)
    assert proxy.cuts > 0
