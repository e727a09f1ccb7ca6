"""Stored answers read by key, in memory."""

from typing import Any

from shopassist.db.memory.store import MemoryStore


class MemoryCachedAnswers:
    """Implements `CachedAnswers`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock decides."""
        self._store = store

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        entry = self._store.cache.get(query_hash)
        return entry.result if entry and entry.expires_at >= self._store.now() else None
