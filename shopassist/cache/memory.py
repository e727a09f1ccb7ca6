"""The query cache in memory."""

import json
from dataclasses import dataclass
from statistics import fmean

from shopassist.cache.models import CacheContents, CachedAnswer, QueryCache, StoredAnswer
from shopassist.db.memory import MemoryRepository, MemoryStore, copy_row


class MemoryCacheRepository(MemoryRepository):
    """Implements `CacheRepository`."""

    async def get_cached_result(self, query_hash: str) -> QueryCache | None:
        entry = self.store.table(QueryCache).get(query_hash)
        return copy_row(entry) if entry and entry.expires_at >= self.store.now() else None

    async def cache_result(self, cache_entry: QueryCache) -> QueryCache:
        self.session.put(self.store.table(QueryCache), cache_entry.query_hash, copy_row(cache_entry))
        return cache_entry

    async def cleanup_expired_cache(self, limit: int = 1000) -> int:
        now, entries = self.store.now(), self.store.table(QueryCache)
        expired = [key for key, entry in entries.items() if entry.expires_at < now][:limit]
        for key in expired:
            self.session.remove(self.store.table(QueryCache), key)
        return len(expired)

    async def clear_cache(self) -> None:
        for key in list(self.store.table(QueryCache)):
            self.session.remove(self.store.table(QueryCache), key)

    async def contents(self) -> CacheContents:
        entries, now = list(self.store.table(QueryCache).values()), self.store.now()
        expired = sum(entry.expires_at < now for entry in entries)
        return CacheContents(
            cache_size=len(entries),
            active_entries=len(entries) - expired,
            expired_entries=expired,
            oldest_entry=min((entry.cached_at for entry in entries), default=None),
            newest_entry=max((entry.cached_at for entry in entries), default=None),
            average_ttl_seconds=round(
                fmean([(entry.expires_at - entry.cached_at).total_seconds() for entry in entries] or [0]), 2
            ),
        )


@dataclass(slots=True)
class MemoryCachedAnswers:
    """Implements `CachedAnswers`."""

    store: MemoryStore
    _epoch: int = 0

    async def find(self, query_hash: str) -> CachedAnswer | None:
        entry = self.store.table(QueryCache).get(query_hash)
        if entry is None or entry.expires_at < self.store.now():
            return None
        return CachedAnswer(entry.result, entry.expires_at)

    async def read_epoch(self) -> int:
        return self._epoch

    async def advance_epoch(self) -> int:
        self._epoch += 1
        return self._epoch


def keep_answer(store: MemoryStore, answer: StoredAnswer) -> None:
    """Store an answer, valid from now on."""
    now = store.now()
    store.table(QueryCache)[answer.query_hash] = QueryCache(
        query_hash=answer.query_hash,
        result=json.loads(answer.result),
        cached_at=now,
        expires_at=now + answer.lifetime,
    )
