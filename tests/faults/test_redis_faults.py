"""Redis killed and frozen under load: callers do not notice."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.faults.conftest import Trials
from tests.support.redis_server import RedisServer, run_redis
from tests.support.trial import Trial

pytestmark = [pytest.mark.faults, pytest.mark.external, pytest.mark.timeout(120)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Start the Redis that the faults happen to."""
    with run_redis() as running:
        yield running


async def hits(shop: Trial) -> int:
    """Return the number of answers from Redis."""
    details = await asyncio.to_thread(shop.server.call, "GET", "/health/detailed")
    return int(details[1]["components"]["shared_cache"]["hits"])


async def used_again(shop: Trial) -> None:
    """Wait until answers come from Redis."""
    before = await hits(shop)
    async with asyncio.timeout(15):
        while await hits(shop) == before:
            await asyncio.sleep(0.2)


async def test_killed(trial: Trials, server: RedisServer) -> None:
    """All questions are answered meanwhile, and Redis is used again after its return."""
    async with trial("Redis killed for 3 s", REDIS_URL=server.url) as shop:
        assert await hits(shop) > 0
        with shop.fault():
            server.kill()
            await asyncio.sleep(3)
            server.start()
        await used_again(shop)
    assert [one for one in shop.during() if one.failed] == []


async def test_frozen(trial: Trials, server: RedisServer) -> None:
    """The same when it accepts bytes without answering."""
    async with trial("Redis frozen for 3 s", REDIS_URL=server.url) as shop:
        assert await hits(shop) > 0
        with shop.fault(), server.frozen():
            await asyncio.sleep(3)
        await used_again(shop)
    assert [one for one in shop.during() if one.failed] == []
