"""Redis tier of the query cache, shared by instances, in front of the answers stored in PostgreSQL."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from pydantic import SecretStr

from shopassist.cache.postgres import DatedAnswer, ObservedEpoch, PostgresCachedAnswers, PostgresCacheEpochs
from shopassist.db.batcher import Batcher
from shopassist.db.ports import Clock
from shopassist.db.resilience import BreakerState, CircuitBreaker
from shopassist.errors import StorageUnavailableError

logger = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from redis.asyncio import Redis

CONNECT_TIMEOUT_SECONDS = 0.1
SOCKET_TIMEOUT_SECONDS = 0.05
TOTAL_TIMEOUT_SECONDS = 0.15
"""Time limit of connecting, authenticating and a response together."""

BREAKER_OPEN_SECONDS = 5.0
"""Time without requests after three failures in a row; then one caller tries again."""

MAX_CONNECTIONS = 8
WRONG_TYPE_ERROR = "WRONGTYPE"
"""Error of Redis for a value that is not a string, which this product did not write."""

MAX_ENTRY_BYTES = 128 * 1024
"""Larger answers are not written, and larger values are not accepted."""

Command = tuple[str | bytes | int, ...]


class RedisClient:
    """Sends pipelined commands with millisecond time-outs and a circuit breaker.

    Every failure is a `StorageUnavailableError`.
    """

    def __init__(self, url: str) -> None:
        """Connect at the first command."""
        self.breaker = CircuitBreaker(self._log_opened, open_seconds=BREAKER_OPEN_SECONDS)
        self.failures = 0
        self._url = url
        self._client: Redis | None = None

    async def send(self, *commands: Command) -> Sequence[object]:
        """Return the response to each command; an exception object for a value that is not a string."""
        with self.breaker.guard():
            try:
                async with asyncio.timeout(TOTAL_TIMEOUT_SECONDS):
                    return await self._send(commands)
            except Exception as error:
                # Nothing in Redis is worth a failed request, so every exception of the library counts.
                self.failures += 1
                logger.debug("shared_cache_failed", error=type(error).__name__)
                raise StorageUnavailableError from error

    async def read(self, mark: str, names: Sequence[str]) -> tuple[bool, list[bytes | None]]:
        """Return whether `mark` exists, and the values: empty if missing, None if not a string.

        A value that is too large is cut off one byte above the limit.
        """
        exists, *values = await self.send(("EXISTS", mark), *(("GETRANGE", name, 0, MAX_ENTRY_BYTES) for name in names))
        return bool(exists), [value if isinstance(value, bytes) else None for value in values]

    async def ping(self) -> None:
        await self.send(("PING",))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send(self, commands: Sequence[Command]) -> Sequence[object]:
        from redis.exceptions import ResponseError  # noqa: PLC0415 - see `_connect`

        async with self._connect().pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            responses = await pipeline.execute(raise_on_error=False)
        for response in responses:
            if isinstance(response, Exception) and not (
                isinstance(response, ResponseError) and str(response).startswith(WRONG_TYPE_ERROR)
            ):
                raise response
        return responses

    def _connect(self) -> "Redis":
        if self._client is None:
            # Importing it takes a third of a second, and most deployments do not use Redis.
            from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415

            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=MAX_CONNECTIONS,
                timeout=SOCKET_TIMEOUT_SECONDS,
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
            self._client = Redis.from_pool(pool)
        return self._client

    def _log_opened(self) -> None:
        logger.warning("shared_cache_away", reason="Redis does not answer; answers are read from the database.")


def build_redis_client(url: SecretStr | None) -> RedisClient | None:
    """Return the client, or None if there is no `url`."""
    if url is None:
        return None
    return RedisClient(url.get_secret_value())


KEY_PREFIX = "shopassist:1"
"""Prefix of every key; the number changes with the format of entries."""

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

    def pack(self, name: str, answer: DatedAnswer) -> bytes | None:
        """Return the content to write under `name`, or None for an answer that is too large."""
        body = json.dumps(answer.result, ensure_ascii=False, separators=(",", ":")).encode()
        expires_at = (answer.expires_at - UNIX_EPOCH) // MICROSECOND
        signed = expires_at.to_bytes(TIME_BYTES, "big") + body
        content = self._sign(name, signed) + signed
        return content if len(content) <= MAX_ENTRY_BYTES else None

    def unpack(self, name: str, content: bytes) -> DatedAnswer | None:
        """Return the answer if it was signed for this very `name`."""
        signature, signed = content[:SIGNATURE_BYTES], content[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(name, signed)):
            return None
        expires_at = UNIX_EPOCH + MICROSECOND * int.from_bytes(signed[:TIME_BYTES], "big")
        return DatedAnswer(json.loads(signed[TIME_BYTES:]), expires_at)

    def _sign(self, name: str, signed: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + signed, "sha256")


EPOCH_TRUST_SECONDS = 2.0
"""How long the database's last epoch and time are used; they are read twice a second."""

MAX_LIFETIME_SECONDS = 300.0
"""Maximum time that an entry is kept, and so that a replaced answer may still be found."""

CLEARED_MARK_MILLISECONDS = 60_000
"""Lifetime of the mark of a cleared epoch; by then all instances have read the new epoch from the database."""

MAX_PENDING_WRITES = 1_000
MAX_BATCH_SIZE = 50


@dataclass(slots=True)
class SharedCacheMetrics:
    """Outcomes of look-ups, and answers written, since the process started."""

    hits: int = 0
    misses: int = 0
    refused: int = 0
    passed: int = 0
    kept: int = 0


class RedisAnswers:
    """Implements `CachedAnswers` and `CacheEpochs`: reads from Redis first, then from PostgreSQL.

    An answer from Redis must be valid by the database's clock, derived from the last read of the epoch, so that no
    other clock can extend its life. An answer from PostgreSQL is written under the epoch that was known *before* it was
    read: if the cache is cleared meanwhile, the entry has a name that no instance looks up any more.
    """

    def __init__(
        self,
        client: RedisClient,
        stored: PostgresCachedAnswers,
        epochs: PostgresCacheEpochs,
        codec: EntryCodec,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Use the database's clock unless `clock` has an instant."""
        self.client = client
        self.metrics = SharedCacheMetrics()
        self._codec = codec
        self._stored = stored
        self._epochs = epochs
        self._clock = clock
        self._monotonic = monotonic
        self._reads: Batcher[tuple[str, int], DatedAnswer | None] = Batcher(self._read)
        self._invalid: set[str] = set()
        self._pending: dict[str, DatedAnswer] = {}
        self._writer: asyncio.Task[None] | None = None

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        epoch = self._get_epoch()
        if epoch is None:
            self.metrics.passed += 1
            return await self._stored.find(query_hash)
        answer = await self._find_shared(query_hash, epoch)
        if answer is not None:
            self.metrics.hits += 1
            return answer.result
        answer = await self._stored.find_dated(query_hash)
        if answer is None:
            return None
        self._write(self._codec.name(query_hash, epoch), answer)
        return answer.result

    async def forget(self, query_hash: str) -> None:
        epoch = self._get_epoch()
        if epoch is not None:
            name = self._codec.name(query_hash, epoch)
            self._pending.pop(name, None)
            await self._try_send(("DEL", name))

    async def current(self) -> int:
        return await self._epochs.current()

    async def advance(self) -> int:
        epoch = await self._epochs.advance()
        if not await self._try_send(("SET", self._codec.mark(epoch - 1), "", "PX", CLEARED_MARK_MILLISECONDS)):
            # Other instances may reach Redis; wait until they have read the new epoch from the database.
            await asyncio.sleep(EPOCH_TRUST_SECONDS)
        return epoch

    def _write(self, name: str, answer: DatedAnswer) -> None:
        """Write an answer in the background; it is dropped while Redis is unavailable or busy."""
        if self.client.breaker.state is BreakerState.CLOSED and len(self._pending) < MAX_PENDING_WRITES:
            self._pending[name] = answer
            self._start_writer()

    async def close(self) -> None:
        """Stop writing and disconnect."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
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
        observed = self._epochs.observed
        if observed is None or self._monotonic() - observed.asked_at > EPOCH_TRUST_SECONDS:
            return None
        return observed

    def _get_epoch(self) -> int | None:
        observed = self._get_observed()
        return None if observed is None else observed.epoch

    def _get_time_left(self, expires_at: datetime) -> timedelta | None:
        """Return the minimum time for which an answer is still valid; None when it may have expired."""
        now, observed = self._clock.instant(), self._get_observed()
        if now is None and observed is not None:
            now = observed.time + timedelta(seconds=self._monotonic() - observed.asked_at)
        return None if now is None or now > expires_at else expires_at - now

    async def _find_shared(self, query_hash: str, epoch: int) -> DatedAnswer | None:
        try:
            answer = await self._reads.submit((query_hash, epoch))
        except StorageUnavailableError:
            return None
        if answer is None or self._get_time_left(answer.expires_at) is None:
            self.metrics.misses += 1
            return None
        return answer

    async def _read(self, lookups: Sequence[tuple[str, int]]) -> list[DatedAnswer | None]:
        """Read a batch of (hash, epoch). Only look-ups in the newest of the epochs find anything."""
        epoch = max(epoch for _, epoch in lookups)
        names = list({self._codec.name(query_hash, epoch) for query_hash, _ in lookups})
        is_cleared, contents = await self.client.read(self._codec.mark(epoch), names)
        if is_cleared:
            return [None] * len(lookups)
        found = {name: self._unpack(name, content) for name, content in zip(names, contents, strict=True)}
        return [found.get(self._codec.name(query_hash, its_epoch)) for query_hash, its_epoch in lookups]

    def _unpack(self, name: str, content: bytes | None) -> DatedAnswer | None:
        """Return the answer in a value; schedule the deletion of a value that is not a valid entry."""
        if content == b"":
            return None
        answer = self._codec.unpack(name, content) if content and len(content) <= MAX_ENTRY_BYTES else None
        if answer is None:
            self.metrics.refused += 1
            self._invalid.add(name)
            self._start_writer()
        return answer

    def _start_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_pending())

    async def _write_pending(self) -> None:
        while self._invalid or self._pending:
            commands: list[Command] = [
                ("DEL", self._invalid.pop()) for _ in range(min(len(self._invalid), MAX_BATCH_SIZE))
            ]
            for _ in range(min(len(self._pending), MAX_BATCH_SIZE)):
                commands += self._build_write(*self._pending.popitem())
            if commands and not await self._try_send(*commands):
                self._invalid.clear()
                self._pending.clear()

    def _build_write(self, name: str, answer: DatedAnswer) -> list[Command]:
        """Return the command that keeps an answer until it expires, without replacing a newer one."""
        content, left = self._codec.pack(name, answer), self._get_time_left(answer.expires_at)
        milliseconds = 0 if left is None else int(1000 * min(left.total_seconds(), MAX_LIFETIME_SECONDS))
        if content is None or not milliseconds:
            return []
        self.metrics.kept += 1
        return [("SET", name, content, "NX", "PX", milliseconds)]

    async def _try_send(self, *commands: Command) -> bool:
        try:
            await self.client.send(*commands)
        except StorageUnavailableError:
            return False
        return True


def build_redis_answers(
    url: SecretStr | None, stored: PostgresCachedAnswers, epochs: PostgresCacheEpochs, key: bytes, clock: Clock
) -> RedisAnswers | None:
    """Return the tier, or None without `url`."""
    client = build_redis_client(url)
    return None if client is None else RedisAnswers(client, stored, epochs, EntryCodec(key), clock)
