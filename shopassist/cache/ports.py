"""Protocols of the query cache's storage."""

from typing import Any, Protocol

from shopassist.cache.models import CacheContents, QueryCache


class CachedAnswers(Protocol):
    """Stored answers for the hot path, read outside of units of work."""

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        """Return the answer while it is valid."""

    async def forget(self, query_hash: str) -> None:
        """Drop copies of an answer that was replaced."""


class CacheEpochs(Protocol):
    """The number of times the query cache was cleared by any process."""

    async def current(self) -> int:
        """Return the current number."""

    async def advance(self) -> int:
        """Count one more and return the new number; no earlier answer is found after that."""


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
