"""Redis tier of the query cache, shared by instances, in front of the answers stored in PostgreSQL."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog

from shopassist.cache.models import CachedAnswer
from shopassist.cache.postgres import ObservedEpoch, PostgresCachedAnswers
from shopassist.db.batcher import Batcher
from shopassist.db.circuit_breaker import BreakerState, CircuitBreaker
from shopassist.db.ports import Clock
from shopassist.errors import StorageUnavailableError
from shopassist.identity.key_derivation import derive_key
from shopassist.settings import Settings

logger = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECT_TIMEOUT_SECONDS = 0.1
SOCKET_TIMEOUT_SECONDS = 0.05
TOTAL_TIMEOUT_SECONDS = 0.15
"""Time limit of connecting, authenticating and a response together."""

BREAKER_OPEN_SECONDS = 5.0
"""Time without requests after three failures in a row; then one caller tries again."""

WRONG_TYPE_ERROR = "WRONGTYPE"
"""Error of Redis for a value that is not a string, which this product did not write."""

Command = tuple[str | bytes | int, ...]


class RedisClient:
    """Sends commands with millisecond time-outs and a circuit breaker.

    Every failure is a `StorageUnavailableError`.
    """

    def __init__(self, url: str) -> None:
        """Connect at the first command."""
        self.breaker = CircuitBreaker(self._log_opened, open_seconds=BREAKER_OPEN_SECONDS)
        self.failures = 0
        self._url = url
        self._client: Redis | None = None
        self._batches: Batcher[Sequence[Command], list[object]] = Batcher(self._send_batch)

    async def send(self, *commands: Command) -> list[object]:
        """Return the response to each command; an exception object for a value that is not a string.

        Concurrent callers share a pipeline, in which equal commands are sent once.
        """
        return await self._batches.submit(commands)

    async def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send_batch(self, batch: Sequence[Sequence[Command]]) -> list[list[object]]:
        commands = list(dict.fromkeys(chain.from_iterable(batch)))
        with self.breaker.guard():
            try:
                async with asyncio.timeout(TOTAL_TIMEOUT_SECONDS):
                    responses = dict(zip(commands, await self._execute(commands), strict=True))
            except Exception as error:
                # Nothing in Redis is worth a failed request, so every exception of the library counts.
                self.failures += 1
                logger.debug("shared_cache_failed", error=type(error).__name__)
                raise StorageUnavailableError from error
        return [[responses[command] for command in request] for request in batch]

    async def _execute(self, commands: Sequence[Command]) -> list[object]:
        async with self._connect().pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            responses: list[object] = await pipeline.execute(raise_on_error=False)
        for response in responses:
            if isinstance(response, Exception) and not str(response).startswith(WRONG_TYPE_ERROR):
                raise response
        return responses

    def _connect(self) -> "Redis":
        if self._client is None:
            # Importing it takes a third of a second, and most deployments do not use Redis.
            from redis.asyncio import Redis  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415

            self._client = Redis.from_url(
                self._url,
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
        return self._client

    def _log_opened(self) -> None:
        logger.warning("shared_cache_away", reason="Redis does not answer; answers are read from the database.")


KEY_PREFIX = "shopassist:1"
"""Prefix of every key; the number changes with the format of entries."""

MAX_ENTRY_BYTES = 128 * 1024
"""Larger answers are not written; a larger value is cut off when it is read, so that its signature is wrong."""

SIGNATURE_BYTES = 32
TIME_BYTES = 8
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class EntryCodec:
    """Names and signed contents of entries. Only servers with the same secret accept each other's entries."""

    def __init__(self, key: bytes) -> None:
        """Sign with `key`."""
        self._key = key
        self._prefix = f"{KEY_PREFIX}:{hashlib.sha256(key).hexdigest()[:12]}"

    def name(self, query_hash: str, epoch: int) -> str:
        """Return the key of an answer while the cache is in `epoch`."""
        return f"{self._prefix}:{epoch}:{query_hash}"

    def mark(self, epoch: int) -> str:
        """Return the key that exists once the cache of `epoch` was cleared."""
        return f"{self._prefix}:{epoch}:cleared"

    def pack(self, name: str, answer: CachedAnswer) -> bytes | None:
        """Return the content to write under `name`, or None for an answer that is too large."""
        body = json.dumps(answer.result, ensure_ascii=False, separators=(",", ":")).encode()
        expires_at = (answer.expires_at - UNIX_EPOCH) // MICROSECOND
        signed = expires_at.to_bytes(TIME_BYTES, "big") + body
        content = self._sign(name, signed) + signed
        return content if len(content) <= MAX_ENTRY_BYTES else None

    def unpack(self, name: str, content: object) -> CachedAnswer | None:
        """Return the answer if it was signed for this very `name`."""
        if not isinstance(content, bytes):
            return None
        signature, signed = content[:SIGNATURE_BYTES], content[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(name, signed)):
            return None
        expires_at = UNIX_EPOCH + MICROSECOND * int.from_bytes(signed[:TIME_BYTES], "big")
        return CachedAnswer(json.loads(signed[TIME_BYTES:]), expires_at)

    def _sign(self, name: str, signed: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + signed, "sha256")


EPOCH_TRUST_SECONDS = 2.0
"""How long the database's last epoch and time are used; they are read twice a second."""

MAX_LIFETIME_SECONDS = 300.0
"""Maximum time that an entry is kept, and so that a replaced answer may still be found."""

CLEARED_MARK_MILLISECONDS = 60_000
"""Lifetime of the mark of a cleared epoch; by then all instances have read the new epoch from the database."""

MAX_PENDING_WRITES = 1_000


@dataclass(slots=True)
class SharedCacheMetrics:
    """Outcomes of look-ups, and answers written, since the process started."""

    hits: int = 0
    misses: int = 0
    refused: int = 0
    passed: int = 0
    kept: int = 0


@dataclass(slots=True)
class RedisAnswers:
    """Implements `SharedAnswers`: reads from Redis first, then from PostgreSQL.

    An answer from Redis must be valid by the database's clock, derived from the last read of the epoch, so that no
    other clock can extend its life; an instant of `clock` takes its place. An answer from PostgreSQL is written under
    the epoch that was known *before* it was read: if the cache is cleared meanwhile, the entry has a name that no
    instance looks up any more.
    """

    client: RedisClient
    stored: PostgresCachedAnswers
    codec: EntryCodec
    clock: Clock
    metrics: SharedCacheMetrics = field(default_factory=SharedCacheMetrics)
    _writes: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def find(self, query_hash: str) -> CachedAnswer | None:
        observed = self._get_observed()
        if observed is None:
            self.metrics.passed += 1
            return await self.stored.find(query_hash)
        name = self.codec.name(query_hash, observed.epoch)
        answer = await self._find_shared(name, self.codec.mark(observed.epoch))
        if answer is not None:
            self.metrics.hits += 1
            return answer
        answer = await self.stored.find(query_hash)
        if answer is not None:
            self._write(name, answer)
        return answer

    async def forget(self, query_hash: str) -> None:
        observed = self._get_observed()
        if observed is not None:
            name = self.codec.name(query_hash, observed.epoch)
            if write := self._writes.get(name):
                write.cancel()
            await self._try_send(("DEL", name))

    async def read_epoch(self) -> int:
        return await self.stored.read_epoch()

    async def advance_epoch(self) -> int:
        epoch = await self.stored.advance_epoch()
        if not await self._try_send(("SET", self.codec.mark(epoch - 1), "", "PX", CLEARED_MARK_MILLISECONDS)):
            # Other instances may reach Redis; wait until they have read the new epoch from the database.
            await asyncio.sleep(EPOCH_TRUST_SECONDS)
        return epoch

    async def close(self) -> None:
        """Stop writing and disconnect."""
        for write in self._writes.values():
            write.cancel()
        await asyncio.gather(*self._writes.values(), return_exceptions=True)
        await self.client.close()

    def status(self) -> dict[str, Any]:
        """Return the state of the breaker and the metrics."""
        return {
            "status": self.client.breaker.state.value,
            "opened": self.client.breaker.times_opened,
            "failures": self.client.failures,
            **asdict(self.metrics),
        }

    def _get_observed(self) -> ObservedEpoch | None:
        """Return the database's last epoch and time while they are recent enough."""
        observed = self.stored.observed
        if observed is None or time.monotonic() - observed.asked_at > EPOCH_TRUST_SECONDS:
            return None
        return observed

    def _get_time_left(self, expires_at: datetime) -> timedelta | None:
        """Return the minimum time for which an answer is still valid; None when it may have expired."""
        now, observed = self.clock.instant(), self._get_observed()
        if now is None and observed is not None:
            now = observed.time + timedelta(seconds=time.monotonic() - observed.asked_at)
        return None if now is None or now > expires_at else expires_at - now

    async def _find_shared(self, name: str, mark: str) -> CachedAnswer | None:
        """Return a valid answer, and delete a value that is not an entry of this product."""
        answer = None
        try:
            is_cleared, content = await self.client.send(("EXISTS", mark), ("GETRANGE", name, 0, MAX_ENTRY_BYTES - 1))
        except StorageUnavailableError:
            return None
        if not is_cleared and content != b"":  # empty when there is no value
            answer = self.codec.unpack(name, content)
            if answer is None:
                self.metrics.refused += 1
                await self._try_send(("DEL", name))
        if answer is None or self._get_time_left(answer.expires_at) is None:
            self.metrics.misses += 1
            return None
        return answer

    def _write(self, name: str, answer: CachedAnswer) -> None:
        """Write an answer in the background; it is dropped while Redis is unavailable or busy."""
        is_available = self.client.breaker.state is BreakerState.CLOSED
        if is_available and name not in self._writes and len(self._writes) < MAX_PENDING_WRITES:
            self._writes[name] = asyncio.create_task(self._send_answer(name, answer))
            self._writes[name].add_done_callback(lambda _: self._writes.pop(name, None))

    async def _send_answer(self, name: str, answer: CachedAnswer) -> None:
        """Keep an answer in Redis until it expires, without replacing a newer one."""
        content, left = self.codec.pack(name, answer), self._get_time_left(answer.expires_at)
        milliseconds = 0 if left is None else int(1000 * min(left.total_seconds(), MAX_LIFETIME_SECONDS))
        if content is not None and milliseconds:
            self.metrics.kept += 1
            await self._try_send(("SET", name, content, "NX", "PX", milliseconds))

    async def _try_send(self, command: Command) -> bool:
        try:
            await self.client.send(command)
        except StorageUnavailableError:
            return False
        return True


def build_redis_answers(settings: Settings, stored: PostgresCachedAnswers, clock: Clock) -> RedisAnswers | None:
    """Return the tier, or None without REDIS_URL."""
    url = settings.shared_cache_url
    if url is None:
        return None
    codec = EntryCodec(derive_key(settings, "shared cache"))
    return RedisAnswers(RedisClient(url.get_secret_value()), stored, codec, clock)
