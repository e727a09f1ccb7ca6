"""Cache tier in Redis, shared by instances, in front of the answers stored in PostgreSQL."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shopassist.cache.ports import DatedAnswer, DatedAnswers, EpochObserver, ObservedEpoch
from shopassist.cache.redis_client import MAX_ENTRY_BYTES, Command, RedisClient
from shopassist.db.batcher import Batcher
from shopassist.db.ports import Clock
from shopassist.db.resilience import BreakerState
from shopassist.errors import StorageUnavailableError

KEY_PREFIX = "shopassist:1"
"""What every key begins with; another format of entries has another number."""

SIGNATURE_BYTES = 32
TIME_BYTES = 8
UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class SharedEntry:
    """An answer, valid up to and including `expires_at`."""

    result: dict[str, Any]
    expires_at: datetime


class EntryCodec:
    """Names and contents of what is kept. Servers that share a secret read each other's, and nobody else's."""

    def __init__(self, key: bytes) -> None:
        """`key` signs."""
        self._key = key
        self._prefix = f"{KEY_PREFIX}:{hashlib.sha256(key).hexdigest()[:12]}"

    def name(self, query_hash: str, epoch: int) -> str:
        """Where the answer is kept while the cache has been cleared `epoch` times."""
        return f"{self._prefix}:{epoch}:{query_hash}"

    def mark(self, epoch: int) -> str:
        """What is there once the cache of `epoch` was cleared."""
        return f"{self._prefix}:{epoch}:cleared"

    def packed(self, name: str, entry: SharedEntry) -> bytes | None:
        """What is kept under `name`, or None for an answer that is too large."""
        body = json.dumps(entry.result, ensure_ascii=False, separators=(",", ":")).encode()
        time = (entry.expires_at - UNIX_EPOCH) // MICROSECOND
        signed = time.to_bytes(TIME_BYTES, "big") + body
        content = self._signature(name, signed) + signed
        return content if len(content) <= MAX_ENTRY_BYTES else None

    def unpacked(self, name: str, content: bytes) -> SharedEntry | None:
        """The answer, if it is one of ours and was kept under this very name."""
        signature, signed = content[:SIGNATURE_BYTES], content[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(name, signed)):
            return None
        expires_at = UNIX_EPOCH + MICROSECOND * int.from_bytes(signed[:TIME_BYTES], "big")
        return SharedEntry(json.loads(signed[TIME_BYTES:]), expires_at)

    def _signature(self, name: str, signed: bytes) -> bytes:
        return hmac.digest(self._key, name.encode() + b"\0" + signed, "sha256")


EPOCH_TRUST_SECONDS = 2.0
"""How long what the database said of epoch and time is relied on; it is asked twice a second."""

MAX_LIFETIME_SECONDS = 300.0
"""How long an answer is kept here at the most, and so for how long one that was replaced may still be given."""

CLEARED_MARK_MILLISECONDS = 60_000
"""How long it can be seen that an epoch is over: until everybody has heard it from the database."""

MAX_PENDING_WRITES = 1_000
"""Answers that wait for being kept; more are not kept."""

MAX_BATCH_SIZE = 50


@dataclass(slots=True)
class SharedCacheMetrics:
    """What came of look-ups since the process began, and how many answers were kept."""

    hits: int = 0
    misses: int = 0
    refused: int = 0
    passed: int = 0
    kept: int = 0


class RedisAnswers:
    """Implements `SharedAnswers`: looks in Redis, then behind it, and keeps what was found there.

    An answer is given from Redis only while it is valid by the database's clock, which is known from the last look at
    the epochs: taken at its latest, so that nobody's clock makes an answer live longer. An answer that is read behind
    is kept under the epoch that was known *before* it was read: whatever is read of a cache that is cleared meanwhile
    comes to lie where nobody looks any more.
    """

    def __init__(
        self,
        link: RedisClient | None,
        behind: DatedAnswers,
        epochs: EpochObserver,
        entries: EntryCodec,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a `link` everything is asked for `behind`."""
        self.figures = SharedCacheMetrics()
        self.link = link
        self._behind = behind
        self._epochs = epochs
        self._entries = entries
        self._clock = clock
        self._monotonic = monotonic
        self._reads: Batcher[tuple[str, int], SharedEntry | None] = Batcher(self._read)
        self._spoilt: set[str] = set()
        self._waiting: dict[str, SharedEntry] = {}
        self._keeping: asyncio.Task[None] | None = None

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        if self.link is None:
            return await self._behind.find(query_hash)
        seen = self._seen()
        if seen is None:
            self.figures.passed += 1
            return await self._behind.find(query_hash)
        entry = await self._shared(query_hash, seen.epoch)
        if entry is not None:
            self.figures.hits += 1
            return entry.result
        found = await self._behind.find_dated(query_hash)
        if found is None:
            return None
        self._keep(self._entries.name(query_hash, seen.epoch), found)
        return found.result

    async def forget(self, query_hash: str) -> None:
        seen = self._seen()
        if self.link is None or seen is None:
            return
        name = self._entries.name(query_hash, seen.epoch)
        self._waiting.pop(name, None)
        await self._surely(("DEL", name))

    async def clear(self, epoch: int) -> None:
        mark = self._entries.mark(epoch - 1)
        if not await self._surely(("SET", mark, "", "PX", CLEARED_MARK_MILLISECONDS)) and self.link is not None:
            # Others may reach what this process does not; by then they have heard of it from the database.
            await asyncio.sleep(EPOCH_TRUST_SECONDS)

    async def close(self) -> None:
        """Keep nothing more, and hang up."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self.link is not None:
            await self.link.close()

    def status(self) -> dict[str, Any]:
        """The state of the breaker, or `off`, and what came of look-ups."""
        if self.link is None:
            return {"status": "off"}
        figures = self.figures
        return {
            "status": self.link.breaker.state.value,
            "opened": self.link.breaker.times_opened,
            "failures": self.link.failures,
            **{name: getattr(figures, name) for name in figures.__slots__},
        }

    def _seen(self) -> ObservedEpoch | None:
        """What the database said, as long as that can be relied on."""
        seen = self._epochs.seen if self.link is not None else None
        return seen if seen is not None and self._monotonic() - seen.asked_at <= EPOCH_TRUST_SECONDS else None

    def _left(self, expires_at: datetime) -> timedelta | None:
        """For how much longer an answer is valid, at the least; None when it may have expired."""
        now, seen = self._clock.instant(), self._seen()
        if now is None and seen is not None:
            now = seen.time + timedelta(seconds=self._monotonic() - seen.asked_at)
        return None if now is None or now > expires_at else expires_at - now

    async def _shared(self, query_hash: str, epoch: int) -> SharedEntry | None:
        try:
            entry = await self._reads.submit((query_hash, epoch))
        except StorageUnavailableError:
            return None
        if entry is None or self._left(entry.expires_at) is None:
            self.figures.misses += 1
            return None
        return entry

    async def _read(self, asked: Sequence[tuple[str, int]]) -> list[SharedEntry | None]:
        """What is kept under the newest epoch that is asked for; whoever knows an older one finds nothing."""
        epoch = max(epoch for _, epoch in asked)
        names = list({self._entries.name(query_hash, epoch) for query_hash, _ in asked})
        if self.link is None:
            return [None] * len(asked)
        is_over, contents = await self.link.read(self._entries.mark(epoch), names)
        found = (
            {} if is_over else {name: self._entry(name, content) for name, content in zip(names, contents, strict=True)}
        )
        return [found.get(self._entries.name(query_hash, its_epoch)) for query_hash, its_epoch in asked]

    def _entry(self, name: str, content: bytes | None) -> SharedEntry | None:
        if content == b"":
            return None
        entry = self._entries.unpacked(name, content) if content and len(content) <= MAX_ENTRY_BYTES else None
        if entry is None:
            self.figures.refused += 1
            self._spoilt.add(name)
            self._see_to_it()
        return entry

    def _keep(self, name: str, answer: DatedAnswer) -> None:
        """Keep an answer in a while; nobody waits for that, and it need not happen."""
        if (
            self.link is not None
            and self.link.breaker.state is BreakerState.CLOSED
            and len(self._waiting) < MAX_PENDING_WRITES
        ):
            self._waiting[name] = SharedEntry(answer.result, answer.expires_at)
            self._see_to_it()

    def _see_to_it(self) -> None:
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._spoilt or self._waiting:
            commands: list[Command] = [
                ("DEL", self._spoilt.pop()) for _ in range(min(len(self._spoilt), MAX_BATCH_SIZE))
            ]
            for _ in range(min(len(self._waiting), MAX_BATCH_SIZE)):
                commands += self._keeping_of(*self._waiting.popitem())
            if commands and not await self._surely(*commands):
                self._spoilt.clear()
                self._waiting.clear()

    def _keeping_of(self, name: str, entry: SharedEntry) -> list[Command]:
        """How an answer is kept: for no longer than it is valid, and not in place of a newer one."""
        content, left = self._entries.packed(name, entry), self._left(entry.expires_at)
        milliseconds = 0 if left is None else int(1000 * min(left.total_seconds(), MAX_LIFETIME_SECONDS))
        if content is None or not milliseconds:
            return []
        self.figures.kept += 1
        return [("SET", name, content, "NX", "PX", milliseconds)]

    async def _surely(self, *commands: Command) -> bool:
        """Whether it was done."""
        if self.link is None:
            return False
        try:
            await self.link.send(*commands)
        except StorageUnavailableError:
            return False
        return True
