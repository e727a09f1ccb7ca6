"""`python -m benchmarks.shared`: look-ups of cached answers through Redis, compared with PostgreSQL alone.

Both run alternately in one process; needs `redis-server` (`make tools`). Answers have 3 kB, the size of one with
five products.
"""

import asyncio
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack

import asyncpg
import uvloop
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from benchmarks.callers import measure_callers
from benchmarks.database import build_settings, fill, run_postgres
from benchmarks.workers import Sample
from containers import Container
from shopassist.logging import configure_logging
from shopassist.settings import CacheSettings
from tests.support.redis_server import run_redis

ANSWERS = 500
CALLERS = (1, 32, 256)
RESULT = json.dumps({"products": [{"title": "Phone", "features": ["x" * 100] * 5}] * 5, "recommendations_summary": "y"})
VALUES: dict[str, Callable[[Sample], float]] = {
    "p50 (ms)": lambda one: 1000 * one.p50,
    "p99 (ms)": lambda one: 1000 * one.p99,
    "per second": lambda one: one.rate,
    "CPU (µs)": lambda one: one.cpu,
}


async def poll_epoch(container: Container) -> None:
    """Poll the epoch as a server does."""
    while True:
        await container.cached_answers().read_epoch()
        await asyncio.sleep(0.5)


async def look_up(container: Container, callers: int, seconds: float) -> Sample:
    """Run this many callers that look answers up, each one after another."""
    find = container.query_cache_service().get_cached_result

    async def found(query_hash: str) -> None:
        assert await find(query_hash)

    return Sample(**await measure_callers(found, [f"bench-{n:07}" for n in range(ANSWERS)], callers, seconds))


async def measure(
    url: str, redis_url: str, rounds: int, seconds: float
) -> list[tuple[int, list[tuple[Sample, Sample]], float]]:
    """Return the samples of both for each number of callers, and the share that Redis answered."""
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE query_cache SET result = $1::jsonb", RESULT)
    await connection.execute("VACUUM (ANALYZE) query_cache")
    await connection.close()
    plain = Container(settings=build_settings(url))
    cache = CacheSettings(redis_url=SecretStr(redis_url))
    shared = Container(settings=build_settings(url).model_copy(update={"cache": cache}))
    hearing = [asyncio.create_task(poll_epoch(container)) for container in (plain, shared)]
    await asyncio.sleep(0.2)
    found = []
    for callers in CALLERS:
        await look_up(shared, callers, 1)  # to fill the cache
        tier = shared.shared_answers()
        assert tier is not None
        figures = tier.metrics
        hits, misses = figures.hits, figures.misses
        pairs = []
        for turn in range(rounds):
            order = (shared, plain) if turn % 2 else (plain, shared)
            by = {container: await look_up(container, callers, seconds) for container in order}
            pairs.append((by[shared], by[plain]))
        asked = figures.hits - hits + figures.misses - misses
        found.append((callers, pairs, (figures.hits - hits) / asked))
    for task in hearing:
        task.cancel()
    for container in (plain, shared):
        await container.shutdown()
    return found


def main(arguments: list[str]) -> None:
    """Measure and print."""
    configure_logging("warning")
    rounds, seconds = (3, 0.7) if "--quick" in arguments else (7, 2)
    with ExitStack() as stack:
        url, _ = stack.enter_context(run_postgres())
        redis = stack.enter_context(run_redis())
        link = fill(url, "shared", 1_000)
        found = uvloop.run(measure(link, redis.url, rounds, seconds))
    table = Table("callers", "", "Redis", "PostgreSQL", "Redis ÷ PostgreSQL", title="Cached look-ups in process")
    for callers, pairs, share in found:
        for name, value in VALUES.items():
            ratios = [value(a) / value(b) for a, b in pairs]
            sides = [statistics.median(value(pair[side]) for pair in pairs) for side in (0, 1)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            table.add_row(str(callers), name, *(f"{side:,.2f}" for side in sides), spread)
        table.add_row(str(callers), "not asked of PostgreSQL", f"{100 * share:.2f} %", "", "")
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
