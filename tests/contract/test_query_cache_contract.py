"""`QueryCacheService`, the same over both twins."""

import hashlib
from typing import Any

import pytest

from containers import Container
from shopassist.errors import InvalidInputError
from tests.support.helpers import FixedClock

HASH = "a" * 64
ANSWER: dict[str, Any] = {"products": [{"title": "Phone ₹", "price": 11999.0}], "n": 1}


async def test_hash_of_the_contract(container: Container) -> None:
    """The example of the contract; case, outer space and an empty context do not count, a context does."""
    generate = container.query_cache_service().generate_query_hash
    expected = "39081a0127b44c8cd8cd96da82c4a43e0104c7e5be18264d180ffc2252af4822"
    assert generate(" Best 5G phone under ₹12,000 ") == expected
    assert generate("best 5g phone under ₹12,000", "  ") == expected
    assert generate("best 5g phone under ₹12,000", "x") != expected
    assert generate("q", " c ") == hashlib.sha256(b'{"context": "c", "query": "q"}').hexdigest()


async def test_an_answer_is_valid_up_to_and_including_its_last_instant(container: Container, clock: FixedClock) -> None:
    """60 minutes later it is served, a microsecond after that it is not."""
    cache = container.query_cache_service()
    await cache.cache_result(HASH, ANSWER)
    clock.move(minutes=60)
    assert await cache.get_cached_result(HASH) == ANSWER
    clock.move(microseconds=1)
    assert await cache.get_cached_result(HASH) is None


async def test_storing_again_replaces_and_prolongs(container: Container, clock: FixedClock) -> None:
    """The newer answer is served for its own full time."""
    cache = container.query_cache_service()
    await cache.cache_result(HASH, ANSWER)
    clock.move(minutes=50)
    await cache.cache_result(HASH, {"n": 2})
    clock.move(minutes=50)
    assert await cache.get_cached_result(HASH) == {"n": 2}


async def test_clear_expired_counts_what_it_removed(container: Container, clock: FixedClock) -> None:
    """Expired entries go and are counted; valid ones stay."""
    cache = container.query_cache_service()
    await cache.cache_result("b" * 64, ANSWER)
    await cache.cache_result("c" * 64, ANSWER)
    clock.move(minutes=61)
    await cache.cache_result(HASH, ANSWER)
    assert await cache.clear_expired_cache() == 2
    assert await cache.clear_expired_cache() == 0
    assert await cache.get_cached_result(HASH) == ANSWER


async def test_statistics(container: Container, clock: FixedClock) -> None:
    """Hits, misses and contents are counted; clearing zeroes all."""
    cache = container.query_cache_service()
    first = clock.time
    await cache.cache_result("b" * 64, ANSWER)
    clock.move(minutes=61)
    await cache.cache_result(HASH, ANSWER)
    for query_hash in (HASH, "b" * 64, "c" * 64):
        await cache.get_cached_result(query_hash)
    assert await cache.get_cache_stats() == {
        "cache_hits": 1,
        "cache_misses": 2,
        "total_requests": 3,
        "hit_rate_percent": 33.33,
        "cache_size": 2,
        "active_entries": 1,
        "expired_entries": 1,
        "oldest_entry": first,
        "newest_entry": clock.time,
        "average_ttl_seconds": 3600.0,
    }
    await cache.clear_cache()
    stats = await cache.get_cache_stats()
    assert (stats["total_requests"], stats["cache_size"], stats["hit_rate_percent"]) == (0, 0, 0.0)
    assert (stats["oldest_entry"], stats["average_ttl_seconds"]) == (None, 0.0)


@pytest.mark.parametrize(
    "result", [{"x": float("nan")}, {"x": float("inf")}, {"x": "\x00"}, {"x": "\ud800"}, {"x": object()}]
)
async def test_what_json_cannot_carry_is_refused(container: Container, result: dict[str, Any]) -> None:
    """A clear error, and nothing is stored."""
    with pytest.raises(InvalidInputError, match="result"):
        await container.query_cache_service().cache_result(HASH, result)
    assert await container.query_cache_service().get_cached_result(HASH) is None
