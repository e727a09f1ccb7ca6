"""What the services ask of storage about answers that were given before."""

from typing import Any, Protocol

from shopassist.models import CacheContents, QueryCache


class CachedAnswers(Protocol):
    """Stored answers for the hot path, which reads outside any unit of work."""

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        """The answer while it is valid."""


class CacheEpochs(Protocol):
    """How often the query cache was cleared, by any process."""

    async def current(self) -> int:
        """The number now."""

    async def advance(self) -> int:
        """Count one more; the new number."""


class CacheRepository(Protocol):
    """Stored answers."""

    async def get_cached_result(self, query_hash: str) -> QueryCache | None:
        """The entry while it is valid."""

    async def cache_result(self, cache_entry: QueryCache) -> QueryCache:
        """Insert, or replace the entry of the same hash."""

    async def cleanup_expired_cache(self) -> int:
        """Remove entries past their validity; how many."""

    async def clear_cache(self) -> None: ...

    async def contents(self) -> CacheContents: ...
