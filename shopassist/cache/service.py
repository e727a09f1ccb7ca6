"""The query cache: hash questions, look up, store and clear answers; keep copies for database failures."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from typing import Any, Protocol

from cachetools import LRUCache
from pydantic import BaseModel

from shopassist.cache.models import CacheContents, CachedAnswer, QueryCache, StoredAnswer
from shopassist.db.columns import utc_now
from shopassist.db.ports import Clock, ReplicaReads, UnitOfWork, run_in_batches
from shopassist.errors import InvalidInputError


class CachedAnswers(Protocol):
    """Stored answers for the hot path, outside of units of work, and the number of times they were cleared."""

    async def find(self, query_hash: str) -> CachedAnswer | None:
        """Return the answer while it is valid."""

    async def read_epoch(self) -> int:
        """Return how often any process cleared the answers."""

    async def advance_epoch(self) -> int:
        """Count one more clearing and return their number; no earlier answer is found after that."""


class SharedAnswers(CachedAnswers, Protocol):
    """A tier in front of stored answers, which finds one a little longer than it is stored."""

    async def forget(self, query_hash: str) -> None:
        """Drop the copy of an answer that was replaced."""


class CacheRepository(Protocol):
    """Stored answers."""

    async def get_cached_result(self, query_hash: str) -> QueryCache | None:
        """Return the entry while it is valid."""

    async def cache_result(self, cache_entry: QueryCache) -> QueryCache:
        """Insert the entry or replace the one with the same hash."""

    async def cleanup_expired_cache(self, limit: int = 1000) -> int:
        """Delete up to `limit` expired entries and return their number."""

    async def clear_cache(self) -> None: ...

    async def contents(self) -> CacheContents: ...


class CacheRepositories(Protocol):
    """Repositories of the query cache within a unit of work."""

    @property
    def cache(self) -> CacheRepository: ...


REFRESH_SECONDS = 60.0
"""Minimum age at which a kept copy is replaced by what the database returns, which may have changed."""

ENTRY_OVERHEAD_BYTES = 600
"""Memory of a copy besides its answer."""


@dataclass(frozen=True, slots=True)
class StaleEntry:
    """An answer as JSON, with the times until which it is served and from which it is replaced (monotonic seconds)."""

    body: bytes
    serve_until: float
    refresh_from: float


class StaleAnswers:
    """In-process copies of recent answers by query hash, read only while the database is unavailable.

    The least recently used are evicted first. Answers are the same for all users, and nothing about users is kept.
    `epoch` is the last known number of clearings: answers read before a clearing are not kept after it.
    """

    def __init__(
        self,
        max_answers: int,
        max_bytes: int,
        max_age: timedelta,
        validity: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve no answer older than `max_age`; an answer found in the database is at most `validity` old."""
        self.epoch = 0
        self._max_answers = max_answers
        self._max_age = max_age.total_seconds()
        self._validity = validity.total_seconds()
        self._monotonic = monotonic
        self._entries: LRUCache[str, StaleEntry] = LRUCache(
            max_bytes, lambda entry: len(entry.body) + ENTRY_OVERHEAD_BYTES
        )
        self._served = 0

    def add_new(self, answer: StoredAnswer, epoch: int) -> None:
        """Keep an answer that was just stored in the cache of `epoch`."""
        self._add(answer.query_hash, answer.result, epoch, 0.0)

    def add_found(self, query_hash: str, answer: BaseModel, epoch: int) -> None:
        """Keep an answer that the database returned during `epoch`."""
        entry = self._entries.get(query_hash)
        if entry is None or entry.refresh_from <= self._monotonic():
            self._add(query_hash, answer.model_dump_json(), epoch, self._validity)

    def find(self, query_hash: str) -> bytes | None:
        """Return the answer as JSON unless it is too old."""
        entry = self._entries.get(query_hash)
        if entry is None:
            return None
        if entry.serve_until < self._monotonic():
            del self._entries[query_hash]
            return None
        self._served += 1
        return entry.body

    def set_epoch(self, epoch: int) -> None:
        """Drop all answers if `epoch` is another than before."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._entries.clear()

    def status(self) -> dict[str, int]:
        """Return the number of answers, their size in bytes, and how many were served."""
        return {"answers": len(self._entries), "bytes": int(self._entries.currsize), "served": self._served}

    def _add(self, query_hash: str, answer: str, epoch: int, age: float) -> None:
        if epoch != self.epoch:
            return
        now, body = self._monotonic(), answer.encode()
        serve_until = now + self._max_age - age
        previous = self._entries.pop(query_hash, None)
        if previous is not None and previous.body == body:
            serve_until = max(serve_until, previous.serve_until)
        if serve_until >= now:
            with suppress(ValueError):  # larger than all copies together may be
                self._entries[query_hash] = StaleEntry(body, serve_until, now + REFRESH_SECONDS)
        while len(self._entries) > self._max_answers:
            self._entries.popitem()


@dataclass(slots=True)
class QueryCacheService:
    """Answers by the hash of their question, with counts of hits and misses in this process.

    Answers are kept for `validity`, inclusive. Statistics come from `replica_reads`.
    """

    unit_of_work: UnitOfWork[CacheRepositories]
    stored: CachedAnswers
    shared: SharedAnswers | None
    stale: StaleAnswers
    clock: Clock
    validity: timedelta
    replica_reads: ReplicaReads[CacheRepositories]
    _hits: int = 0
    _misses: int = 0
    _lookups_before_clearing: tuple[int, int] = (0, 0)

    def generate_query_hash(self, query: str, conversation_context: str | None = None) -> str:
        """Return the SHA-256 in hex of the question, ignoring case and outer space, and of its context."""
        context = (conversation_context or "").strip() or None
        canonical = json.dumps({"context": context, "query": query.strip().lower()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    async def get_cached_result(self, query_hash: str) -> dict[str, Any] | None:
        """Return the answer while it is valid, and count a hit or a miss."""
        answer = await (self.shared or self.stored).find(query_hash)
        if answer is None:
            self._misses += 1
            return None
        self._hits += 1
        return answer.result

    async def is_cached(self, query_hash: str) -> bool:
        """Return whether a valid answer is stored, without counting a hit or a miss."""
        return await self.stored.find(query_hash) is not None

    async def cache_result(self, query_hash: str, result: dict[str, Any]) -> None:
        """Store or replace an answer. Raises `InvalidInputError` if it is not JSON."""
        dump_answer(result)
        now = self.clock.instant() or utc_now()
        entry = QueryCache(query_hash=query_hash, result=result, cached_at=now, expires_at=now + self.validity)
        await self.unit_of_work.run(lambda work: work.cache.cache_result(entry), repeatable=True)
        if self.shared is not None:
            await self.shared.forget(query_hash)

    def to_store(self, query_hash: str, answer: BaseModel) -> StoredAnswer:
        """Prepare an answer for the commit of its settlement. Raises `InvalidInputError` if it cannot be stored."""
        return StoredAnswer(query_hash, dump_answer(answer.model_dump()), self.validity)

    async def clear_expired_cache(self) -> int:
        """Delete all expired answers and return their number."""
        return (await run_in_batches(self.clear_expired_batch, seconds=inf)).rows

    async def clear_expired_batch(self, limit: int) -> int:
        """Delete up to `limit` expired answers and return their number."""
        return await self.unit_of_work.run(lambda work: work.cache.cleanup_expired_cache(limit), repeatable=True)

    async def clear_cache(self) -> None:
        """Delete all answers, also from the memory of all processes, and reset the statistics."""
        await self.unit_of_work.run(lambda work: work.cache.clear_cache(), repeatable=True)
        # After the deletion: a process that learned of the new epoch earlier could still read and keep an old answer.
        self.stale.set_epoch(await (self.shared or self.stored).advance_epoch())
        self._lookups_before_clearing = self.lookups()

    def lookups(self) -> tuple[int, int]:
        """Return hits and misses since the process started, regardless of clearings."""
        return self._hits, self._misses

    async def get_cache_stats(self) -> dict[str, Any]:
        """Return hits and misses of this process, and the contents of the store."""
        contents = await self.replica_reads.run(lambda work: work.cache.contents())
        earlier_hits, earlier_misses = self._lookups_before_clearing
        hits, misses = self._hits - earlier_hits, self._misses - earlier_misses
        total = hits + misses
        return {
            "cache_hits": hits,
            "cache_misses": misses,
            "total_requests": total,
            "hit_rate_percent": round(100 * hits / total, 2) if total else 0.0,
            **contents.model_dump(),
        }


def dump_answer(result: dict[str, Any]) -> str:
    """Return an answer as JSON. Raises `InvalidInputError` if PostgreSQL cannot store it as such."""
    try:
        text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError):
        raise InvalidInputError("result must be JSON without NaN, infinity, NUL and lone surrogates.") from None
    if "\\u0000" in text:
        raise InvalidInputError("result must not contain the NUL character.")
    return text
