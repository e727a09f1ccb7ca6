"""Protocols of the query cache's storage."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from shopassist.cache.models import CacheContents, QueryCache


@dataclass(frozen=True, slots=True)
class DatedAnswer:
    """A stored answer, valid up to and including `expires_at`."""

    result: dict[str, Any]
    expires_at: datetime


class CachedAnswers(Protocol):
    """Stored answers for the hot path, which reads outside any unit of work."""

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        """The answer while it is valid."""


class DatedAnswers(CachedAnswers, Protocol):
    """Stored answers that say how long they are valid."""

    async def find_dated(self, query_hash: str) -> DatedAnswer | None:
        """The answer while it is valid, and until when that is."""


class SharedAnswers(CachedAnswers, Protocol):
    """A tier in front of stored answers that instances share. What it says is valid, and may have been replaced."""

    async def forget(self, query_hash: str) -> None:
        """Let an answer that was replaced not be found any more."""

    async def clear(self, epoch: int) -> None:
        """Let nothing be found that was kept until the cache was cleared for the time that is numbered `epoch`."""


@dataclass(frozen=True, slots=True)
class ObservedEpoch:
    """The number of clearings and the time, as the database had them no earlier than `asked_at` (monotonic seconds)."""

    epoch: int
    time: datetime
    asked_at: float


class EpochObserver(Protocol):
    """Epochs that somebody in this process asks for all the time."""

    @property
    def seen(self) -> ObservedEpoch | None:
        """What the database said last, if it was asked."""


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

    async def cleanup_expired_cache(self, limit: int = 1000) -> int:
        """Remove entries past their validity, `limit` at the most; how many."""

    async def clear_cache(self) -> None: ...

    async def contents(self) -> CacheContents: ...


class CacheRepositories(Protocol):
    """Repositories of the query cache within a unit of work."""

    @property
    def cache(self) -> CacheRepository: ...
