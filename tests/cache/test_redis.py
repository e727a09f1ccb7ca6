"""Answers that instances share in a real Redis: faster or not, never the truth, and harmless when it dies."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from pydantic import SecretStr

from containers import Container
from shopassist.cache import redis as tier
from shopassist.cache.models import CachedAnswer
from shopassist.cache.redis import MAX_ENTRY_BYTES, RedisAnswers, RedisClient
from shopassist.errors import StorageUnavailableError
from shopassist.monitoring.metrics import collect_families
from shopassist.settings import CacheSettings, Settings
from tests.support.certificates import Authority
from tests.support.helpers import FixedClock, execute, postgres_settings
from tests.support.redis_server import RedisServer, run_redis

pytestmark = pytest.mark.external

Tell = Callable[..., None]
HASH = "a" * 64
ANSWER: dict[str, Any] = {"products": [{"title": "Phone ₹", "price": 11999.0}], "recommendations_summary": "one"}
GONE = "DELETE FROM query_cache"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Start a Redis for these tests."""
    with run_redis() as running:
        yield running


@pytest.fixture
async def client(server: RedisServer) -> AsyncIterator[redis.asyncio.Redis]:
    """Return a client of an empty Redis with all rights."""
    connection = redis.asyncio.Redis.from_url(server.url)
    await connection.flushall()
    yield connection
    await connection.aclose()


def sharing(database_url: str, redis_url: str) -> Settings:
    """Return settings of an instance with Redis."""
    return postgres_settings(database_url).model_copy(update={"cache": CacheSettings(redis_url=SecretStr(redis_url))})


@pytest.fixture
async def two(
    request: pytest.FixtureRequest, database_url: str, server: RedisServer, client: redis.asyncio.Redis
) -> AsyncIterator[tuple[Container, Container]]:
    """Two instances that have heard from the database; on the test's own clock where it asks for one."""
    instances = [Container(settings=sharing(database_url, server.url)) for _ in range(2)]
    for instance in instances:
        if "clock" in request.fixturenames:
            instance.clock.override(request.getfixturevalue("clock"))
        await instance.cached_answers().read_epoch()
    yield instances[0], instances[1]
    for instance in instances:
        await instance.shutdown()


def tier_of(instance: Container) -> RedisAnswers:
    """Return the Redis tier of an instance."""
    shared_answers = instance.shared_answers()
    assert shared_answers is not None
    return shared_answers


async def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def stored(instance: Container, result: dict[str, Any] = ANSWER) -> None:
    """Store an answer, and let this instance put it into Redis."""
    await instance.query_cache_service().cache_result(HASH, result)
    before = tier_of(instance).metrics.kept
    assert await instance.query_cache_service().get_cached_result(HASH) == result
    await until(lambda: tier_of(instance).metrics.kept == before + 1)
    await asyncio.sleep(0.05)


async def test_what_one_instance_read_the_other_finds(two: tuple[Container, Container], database_url: str) -> None:
    """Without PostgreSQL being asked; whether a question is answered is asked of PostgreSQL alone."""
    one, other = two
    await stored(one)
    await execute(database_url, GONE)  # behind everybody's back, to see who is asked
    assert await other.query_cache_service().get_cached_result(HASH) == ANSWER
    assert tier_of(other).metrics.hits == 1
    assert not await other.query_cache_service().is_cached(HASH)


async def test_a_clearing_is_seen_by_everybody_at_once(two: tuple[Container, Container]) -> None:
    """Before they have heard of it from the database; nor does what was read before come back."""
    one, other = two
    await stored(one)
    late = await other.cached_answers().find(HASH)
    name = tier_of(other).codec.name(HASH, other.cached_answers().observed.epoch)
    await one.query_cache_service().clear_cache()
    assert [await instance.query_cache_service().get_cached_result(HASH) for instance in two] == [None, None]
    tier_of(other)._write(name, late)  # noqa: SLF001 - a late writer
    await until(lambda: tier_of(other).metrics.kept == 1)
    await asyncio.sleep(0.05)
    assert [await instance.query_cache_service().get_cached_result(HASH) for instance in two] == [None, None]
    for instance in two:
        await instance.cached_answers().read_epoch()
    assert [await instance.query_cache_service().get_cached_result(HASH) for instance in two] == [None, None]


async def test_a_clearing_is_seen_without_redis(two: tuple[Container, Container], server: RedisServer) -> None:
    """An instance that cannot mark a clearing in Redis waits until no instance trusts the old epoch any more."""
    one, other = two
    await stored(one)
    assert await other.query_cache_service().get_cached_result(HASH) == ANSWER
    began = time.monotonic()
    with server.frozen():
        await one.query_cache_service().clear_cache()
    assert time.monotonic() - began >= tier.EPOCH_TRUST_SECONDS
    passed = tier_of(other).metrics.passed
    assert await other.query_cache_service().get_cached_result(HASH) is None
    assert tier_of(other).metrics.passed == passed + 1


async def test_never_past_expiry_by_the_databases_clock(two: tuple[Container, Container], clock: FixedClock) -> None:
    """Served up to and including the last instant, and not a microsecond longer, whatever Redis still has."""
    one, other = two
    await stored(one)
    clock.move(minutes=60)
    assert await other.query_cache_service().get_cached_result(HASH) == ANSWER
    assert tier_of(other).metrics.hits == 1
    clock.move(microseconds=1)
    assert await other.query_cache_service().get_cached_result(HASH) is None
    assert tier_of(other).metrics.misses == 1


async def test_redis_forgets_before_the_answer_expires(
    two: tuple[Container, Container], client: redis.asyncio.Redis, database_url: str
) -> None:
    """A key lives as long as its answer is valid, but at most five minutes."""
    one, _ = two
    await stored(one)
    [key] = await client.keys("*")
    assert 290_000 < await client.pttl(key) <= 300_000
    await client.flushall()
    await execute(database_url, "UPDATE query_cache SET expires_at = now() + interval '700 ms'")
    await one.query_cache_service().get_cached_result(HASH)
    await until(lambda: tier_of(one).metrics.kept == 2)
    await asyncio.sleep(0.05)
    assert 0 < await client.pttl(key) <= 700
    await asyncio.sleep(0.8)
    assert await client.keys("*") == []
    assert await one.query_cache_service().get_cached_result(HASH) is None


async def test_an_answer_that_was_replaced_is_forgotten(two: tuple[Container, Container]) -> None:
    """An answer read before the replacement does not overwrite the new one."""
    one, other = two
    await stored(one)
    await other.query_cache_service().cache_result(HASH, {"n": 2})
    assert await one.query_cache_service().get_cached_result(HASH) == {"n": 2}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: b"garbage",
        lambda value: value[:-1],
        lambda value: value[:-1] + b" ",
        lambda value: b"\x00" * (MAX_ENTRY_BYTES + 10),
        lambda value: None,
    ],
    ids=["garbage", "cut off", "changed", "too large", "no string"],
)
async def test_what_is_no_answer_is_a_miss_and_deleted(
    two: tuple[Container, Container], client: redis.asyncio.Redis, spoil: Callable[[bytes], bytes | None]
) -> None:
    """PostgreSQL answers, and the next one is whole again."""
    one, other = two
    await stored(one)
    [key] = await client.keys("*")
    value = await client.get(key)
    assert isinstance(value, bytes)
    spoilt = spoil(value)
    await client.delete(key)
    if spoilt is None:
        await client.lpush(key, "list")
    else:
        await client.set(key, spoilt)
    assert await other.query_cache_service().get_cached_result(HASH) == ANSWER
    figures = tier_of(other).metrics
    assert (figures.refused, figures.hits) == (1, 0)
    await until(lambda: figures.kept == 1)
    await asyncio.sleep(0.05)
    assert await one.query_cache_service().get_cached_result(HASH) == ANSWER
    assert tier_of(one).metrics.hits == 1


async def test_an_answer_is_believed_under_its_own_name_only(two: tuple[Container, Container]) -> None:
    """An entry is not accepted for another question, nor without the secret."""
    entries = tier_of(two[0]).codec
    [name, another] = [entries.name(letter * 64, 0) for letter in "ab"]
    expires_at = FixedClock().time + timedelta(hours=1)
    content = entries.pack(name, CachedAnswer(ANSWER, expires_at))
    assert content is not None
    assert entries.unpack(name, content) == CachedAnswer(ANSWER, expires_at)
    assert entries.unpack(another, content) is None
    assert entries.pack(name, CachedAnswer({"x": "y" * MAX_ENTRY_BYTES}, expires_at)) is None


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_redis_that_dies_costs_next_to_nothing(
    two: tuple[Container, Container], server: RedisServer, how: str, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load: no look-up fails, none waits for long, and it is used again once it is back."""
    one, _ = two
    link = tier_of(one).client
    assert link is not None
    monkeypatch.setattr(link.breaker, "_open_seconds", 1.0)
    await stored(one)
    cache, seconds, stop = one.query_cache_service(), [], asyncio.Event()

    async def hear() -> None:
        while not stop.is_set():
            await one.cached_answers().read_epoch()
            await asyncio.sleep(0.2)

    async def shop() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            assert await cache.get_cached_result(HASH) == ANSWER
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(hear()), *(asyncio.create_task(shop()) for _ in range(20))]
    await asyncio.sleep(0.5)
    before = list(seconds)
    seconds.clear()
    if how == "killed":
        server.kill()
        await asyncio.sleep(2)
        during = list(seconds)
        server.start()
    else:
        with server.frozen():
            await asyncio.sleep(2)
            during = list(seconds)
    assert link.breaker.times_opened == 1
    hits = tier_of(one).metrics.hits
    await until(lambda: tier_of(one).metrics.hits > hits, 10)
    stop.set()
    await asyncio.gather(*tasks)
    assert link.breaker.state.value == "closed"
    ranked = sorted(during)
    tell(
        f"look-ups, Redis {how}",
        before_p50_ms=1000 * sorted(before)[len(before) // 2],
        p50_ms=1000 * ranked[len(ranked) // 2],
        p99_ms=1000 * ranked[int(0.99 * len(ranked))],
        slowest_ms=1000 * ranked[-1],
        lookups=len(ranked),
        failed=0,
    )
    assert ranked[-1] < 0.5


async def test_in_memory_there_is_nothing_to_share(server: RedisServer) -> None:
    """REDIS_URL is let be where state is in memory."""
    container = Container(
        settings=Settings.model_validate({"storage": {"storage": "memory"}, "cache": {"redis_url": server.url}})
    )
    assert container.shared_answers() is None
    await container.query_cache_service().cache_result(HASH, ANSWER)
    assert await container.query_cache_service().get_cached_result(HASH) == ANSWER
    await container.shutdown()


async def test_hits_are_counted_where_they_were(two: tuple[Container, Container]) -> None:
    """And misses of Redis apart from those of the database."""
    one, other = two
    await stored(one)
    await other.query_cache_service().get_cached_result(HASH)
    for instance, expected in ((one, (1, 0)), (other, (0, 1))):
        found = {family.name: family for family in collect_families(instance)}
        hits = found["shopassist_query_cache_hits"].samples
        assert (hits[("database",)], hits[("redis",)]) == expected
        assert found["shopassist_shared_cache_breaker"].samples[("closed",)] == 1
    figures = tier_of(other).status()
    assert (figures["status"], figures["hits"], figures["kept"]) == ("closed", 1, 0)


def given_to_read(**files: bytes) -> Path:
    """Return a folder with files that every account may read."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-redis-tls-"))
    folder.chmod(0o755)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o644)
    return folder


async def test_over_tls() -> None:
    """`rediss://` asks for a certificate that an authority of ours has signed, for the very host."""
    authority = Authority("A")
    certificate, key = authority.issue("127.0.0.1")
    folder = given_to_read(root=authority.pem, certificate=certificate, key=key)
    arguments = ["--tls-port", "{port}", "--port", "0", "--tls-auth-clients", "no"]
    arguments += ["--tls-cert-file", f"{folder}/certificate", "--tls-key-file", f"{folder}/key"]
    arguments += ["--tls-ca-cert-file", f"{folder}/root"]
    with run_redis(arguments) as server:
        trusting = f"{server.url.replace('redis:', 'rediss:')}?ssl_ca_certs={folder}/root"
        for url, failures in ((trusting, 0), (trusting.partition("?")[0], 1), (server.url, 1)):
            link = RedisClient(url)
            with nullcontext() if not failures else pytest.raises(StorageUnavailableError):
                await link.send(("PING",))
            assert link.failures == failures
            await link.close()
    shutil.rmtree(folder)
