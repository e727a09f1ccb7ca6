"""Stored answers in memory."""

from statistics import fmean

from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.models import CacheContents, QueryCache


class MemoryCacheRepository(BaseRepository):
    """Implements `CacheRepository`."""

    async def get_cached_result(self, query_hash: str) -> QueryCache | None:
        entry = self.store.cache.get(query_hash)
        return copied(entry) if entry and entry.expires_at >= self.store.now() else None

    async def cache_result(self, cache_entry: QueryCache) -> QueryCache:
        self.session.put(self.store.cache, cache_entry.query_hash, copied(cache_entry))
        return cache_entry

    async def cleanup_expired_cache(self, limit: int = 1000) -> int:
        expired = [key for key, entry in self.store.cache.items() if entry.expires_at < self.store.now()][:limit]
        for key in expired:
            self.session.remove(self.store.cache, key)
        return len(expired)

    async def clear_cache(self) -> None:
        for key in list(self.store.cache):
            self.session.remove(self.store.cache, key)

    async def contents(self) -> CacheContents:
        entries, now = list(self.store.cache.values()), self.store.now()
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
