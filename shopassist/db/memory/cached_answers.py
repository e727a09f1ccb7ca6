"""Stored answers read by key, in memory."""

import json
from typing import Any

from shopassist.db.memory.store import MemoryStore
from shopassist.models import QueryCache
from shopassist.models.ledger import StoredAnswer


class MemoryCachedAnswers:
    """Implements `CachedAnswers`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock decides."""
        self._store = store

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        entry = self._store.cache.get(query_hash)
        return entry.result if entry and entry.expires_at >= self._store.now() else None


def keep_answer(store: MemoryStore, answer: StoredAnswer) -> None:
    """Keep an answer from now on."""
    now = store.now()
    store.cache[answer.query_hash] = QueryCache(
        query_hash=answer.query_hash,
        result=json.loads(answer.result),
        cached_at=now,
        expires_at=now + answer.lifetime,
    )
