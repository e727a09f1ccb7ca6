"""On the way to PostgreSQL: delay, silence, cuts, half of a connection, and a commit whose answer is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.faults.conftest import Trials
from tests.support.databases import OwnPostgres
from tests.support.proxy import Proxy

pytestmark = pytest.mark.faults

SECONDS = 3
COMMIT = b"COMMIT;"
SETTLE = b"Credit deducted for message"
"""What is in the message with which a question is paid for."""


@pytest.fixture
async def proxy(faulty: OwnPostgres) -> AsyncIterator[Proxy]:
    """The way to the database."""
    async with Proxy(faulty.port).running() as proxy:
        yield proxy


async def test_delay(trial: Trials, proxy: Proxy) -> None:
    """A tenth of a second to and fro: everybody is served, though not as fast."""
    async with trial(f"each round trip 0.1 s longer for {SECONDS} s", proxy.port) as shop:
        with shop.fault(), proxy.delaying(0.05):
            await asyncio.sleep(SECONDS)


async def test_black_hole(trial: Trials, proxy: Proxy) -> None:
    """Nothing arrives, and then all at once: what nobody waits for any more does not happen besides."""
    async with trial(f"black hole for {SECONDS} s", proxy.port) as shop:
        with shop.fault(), proxy.silent():
            await asyncio.sleep(SECONDS)


async def test_refused(trial: Trials, proxy: Proxy) -> None:
    """Every connection is cut, and new ones are."""
    async with trial(f"connections cut and refused for {SECONDS} s", proxy.port) as shop:
        with shop.fault(), proxy.refusing():
            await asyncio.sleep(SECONDS)


async def test_half_close(trial: Trials, proxy: Proxy) -> None:
    """The database's end says that it sends no more, five times."""
    async with trial("connections half-closed, 5 times", proxy.port) as shop:
        with shop.fault():
            for _ in range(5):
                proxy.close_towards_product()
                await asyncio.sleep(SECONDS / 5)


async def test_half_open(trial: Trials, proxy: Proxy) -> None:
    """The database's end is gone without a word: one wait tells of all connections, not one wait for each."""
    async with trial("connections half-open", proxy.port) as shop:
        with shop.fault():
            proxy.lose_database()


async def test_cut_after_commit(trial: Trials, proxy: Proxy) -> None:
    """The answer to a commit is lost: whether it happened is looked up, and it is not done again."""
    async with trial("every third answer to a commit cut off", proxy.port) as shop:
        with shop.fault(), proxy.cutting_after(COMMIT, every=3):
            await asyncio.sleep(SECONDS)
    assert proxy.cuts > 0


async def test_cut_after_settlement(trial: Trials, proxy: Proxy) -> None:
    """The answer to a settlement is lost: who was charged gets the answer, and is not charged again."""
    async with trial("every third answer to a settlement cut off", proxy.port) as shop:
        with shop.fault(), proxy.cutting_after(SETTLE, every=3):
            await asyncio.sleep(SECONDS)
    assert proxy.cuts > 0
