"""The query cache service: hash questions, look up, store and clear answers, statistics."""

import hashlib
import json
from datetime import timedelta
from math import inf, isfinite
from typing import Any

from pydantic_core import PydanticSerializationError

from shopassist.cache.fallback import StaleAnswers
from shopassist.cache.models import QueryCache, StoredAnswer
from shopassist.cache.ports import CachedAnswers, CacheEpochs, CacheRepositories, SharedAnswers
from shopassist.db.columns import utc_now
from shopassist.db.ports import Clock, ReplicaReads, UnitOfWork
from shopassist.db.row_batches import run_in_batches
from shopassist.errors import InvalidInputError
from shopassist.query.models import Answer
from shopassist.text import validate_text


def reject_nul(text: str) -> str:
    """`text`, which is JSON, if no string in it has a NUL. Raises `InvalidInputError`."""
    if "\\u0000" in text:
        raise InvalidInputError("result must not contain the NUL character.")
    return text


class QueryCacheService:
    """Answers by the hash of their question. Hits and misses are counted for as long as this object lives."""

    def __init__(
        self,
        unit_of_work: UnitOfWork[CacheRepositories],
        answers: CachedAnswers,
        shared: SharedAnswers,
        epochs: CacheEpochs,
        stale: StaleAnswers,
        clock: Clock,
        validity: timedelta,
        lagging_reads: ReplicaReads[CacheRepositories] | None = None,
    ) -> None:
        """An answer is valid for `validity`, up to and including its last instant. Clearing clears `stale` as well.

        `shared` is in front of `answers`, which alone tell for sure.

        Statistics come from `lagging_reads`, or else from `unit_of_work`.
        """
        self._lagging_reads = lagging_reads or unit_of_work
        self._epochs = epochs
        self._stale = stale
        self._answers = answers
        self._shared = shared
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._validity = validity
        self._hits = 0
        self._misses = 0
        self._cleared = (0, 0)

    def generate_query_hash(self, query: str, conversation_context: str | None = None) -> str:
        """SHA-256, 64 hex characters, of the question and what was said before; case and outer space do not count."""
        context = (conversation_context or "").strip() or None
        canonical = json.dumps({"context": context, "query": query.strip().lower()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    async def get_cached_result(self, query_hash: str) -> dict[str, Any] | None:
        """The answer while it is valid."""
        result = await self._shared.find(query_hash)
        if result is None:
            self._misses += 1
        else:
            self._hits += 1
        return result

    async def is_cached(self, query_hash: str) -> bool:
        """Whether there is a valid answer; neither a hit nor a miss."""
        return await self._answers.find(query_hash) is not None

    async def cache_result(self, query_hash: str, result: dict[str, Any]) -> None:
        """Store or replace an answer. Raises `InvalidInputError` for what JSON cannot carry."""
        now = self._clock.instant() or utc_now()
        entry = QueryCache(
            query_hash=query_hash, result=validate_result(result), cached_at=now, expires_at=now + self._validity
        )
        await self._unit_of_work.run(lambda work: work.cache.cache_result(entry), repeatable=True)
        await self._shared.forget(query_hash)

    def to_store(self, query_hash: str, answer: Answer) -> StoredAnswer:
        """An answer for the ledger to store in the same commit as its settlement. Raises `InvalidInputError`."""
        if not all(isfinite(product.price) for product in (*answer.products, *answer.near_misses)):
            raise InvalidInputError("result must not contain NaN or infinity.")
        try:
            text = answer.model_dump_json()
        except PydanticSerializationError:
            raise InvalidInputError("result must not contain a lone surrogate.") from None
        return StoredAnswer(query_hash, reject_nul(text), self._validity)

    async def clear_expired_cache(self) -> int:
        """Remove answers past their validity; how many."""
        return (await run_in_batches(self.clear_expired_batch, seconds=inf)).rows

    async def clear_expired_batch(self, limit: int) -> int:
        """The same for `limit` answers at the most."""
        return await self._unit_of_work.run(lambda work: work.cache.cleanup_expired_cache(limit), repeatable=True)

    async def clear_cache(self) -> None:
        """Remove every answer, also from the memory of every process, and zero the statistics."""
        await self._unit_of_work.run(lambda work: work.cache.clear_cache(), repeatable=True)
        # Only now, or a process that was told could read an answer again that is still there.
        epoch = await self._epochs.advance()
        self._stale.follow(epoch)
        await self._shared.clear(epoch)
        self._cleared = (self._cleared[0] + self._hits, self._cleared[1] + self._misses)
        self._hits = self._misses = 0

    def lookups(self) -> tuple[int, int]:
        """Hits and misses of this process since it began, whatever was cleared meanwhile."""
        return self._cleared[0] + self._hits, self._cleared[1] + self._misses

    async def get_cache_stats(self) -> dict[str, Any]:
        """Hits and misses of this process, and what the store holds."""
        contents = await self._lagging_reads.run(lambda work: work.cache.contents())
        total = self._hits + self._misses
        return {
            "cache_hits": self._hits,
            "cache_misses": self._misses,
            "total_requests": total,
            "hit_rate_percent": round(100 * self._hits / total, 2) if total else 0.0,
            **contents.model_dump(),
        }


def validate_result(result: dict[str, Any]) -> dict[str, Any]:
    """`result`, if it can be stored as JSON. Raises `InvalidInputError`."""
    try:
        text = validate_text(json.dumps(result, allow_nan=False, ensure_ascii=False))
    except (TypeError, ValueError):
        raise InvalidInputError("result must be JSON without NaN, infinity, NUL and lone surrogates.") from None
    reject_nul(text)
    return result
