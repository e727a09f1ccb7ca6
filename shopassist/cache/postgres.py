"""The query cache in PostgreSQL."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, TextClause, delete, func, text
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from shopassist.cache.models import CacheContents, CachedAnswer, QueryCache
from shopassist.db.batcher import Batcher
from shopassist.db.database import BaseRepository, DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.statements import fetch

# Skips rows that are being replaced at this moment.
DELETE_EXPIRED = text("""
DELETE FROM query_cache WHERE query_hash = ANY(ARRAY(
    SELECT query_hash FROM query_cache WHERE expires_at < COALESCE(CAST(:instant AS timestamptz), now())
    ORDER BY expires_at LIMIT :limit FOR UPDATE SKIP LOCKED
))
""")


class PostgresCacheRepository(BaseRepository):
    """Implements `CacheRepository`."""

    async def get_cached_result(self, query_hash: str) -> QueryCache | None:
        statement = select(QueryCache).where(
            col(QueryCache.query_hash) == query_hash, col(QueryCache.expires_at) >= self.now()
        )
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def cache_result(self, cache_entry: QueryCache) -> QueryCache:
        lifetime = cache_entry.expires_at - cache_entry.cached_at
        row = cache_entry.model_dump() | {"cached_at": self.now(), "expires_at": self.now() + lifetime}
        upsert = insert(QueryCache).values(row)
        upsert = upsert.on_conflict_do_update(
            index_elements=["query_hash"], set_={name: upsert.excluded[name] for name in row if name != "query_hash"}
        )
        await self.session.execute(upsert)
        return cache_entry

    async def cleanup_expired_cache(self, limit: int = 1000) -> int:
        parameters = {"limit": limit, "instant": self.clock.instant()}
        return cast("CursorResult[Any]", await self.session.execute(DELETE_EXPIRED, parameters)).rowcount

    async def clear_cache(self) -> None:
        await self.session.execute(delete(QueryCache))

    async def contents(self) -> CacheContents:
        expired = func.count().filter(col(QueryCache.expires_at) < self.now())
        age = func.extract("epoch", col(QueryCache.expires_at) - col(QueryCache.cached_at))
        statement = select_columns(
            func.count(),
            expired,
            func.min(col(QueryCache.cached_at)),
            func.max(col(QueryCache.cached_at)),
            func.avg(age),
        ).select_from(QueryCache)
        size, expired_entries, oldest, newest, lifetime = (await self.session.execute(statement)).one()
        return CacheContents(
            cache_size=size,
            active_entries=size - expired_entries,
            expired_entries=expired_entries,
            oldest_entry=oldest,
            newest_entry=newest,
            average_ttl_seconds=round(float(lifetime or 0), 2),
        )


SELECT_ANSWERS = text("""
SELECT query_hash, result, expires_at FROM query_cache
WHERE query_hash = ANY(CAST(:hashes AS text[])) AND expires_at >= COALESCE(CAST(:instant AS timestamptz), now())
""")


SELECT_EPOCH = text("""
SELECT COALESCE((SELECT epoch FROM cache_epochs WHERE name = :name), 0) AS epoch, clock_timestamp() AS time
""")

ADVANCE_EPOCH = text("""
INSERT INTO cache_epochs AS e (name, epoch) VALUES (:name, 1)
ON CONFLICT (name) DO UPDATE SET epoch = e.epoch + 1
RETURNING epoch, clock_timestamp() AS time
""")

EPOCH_NAME = "answers"


@dataclass(frozen=True, slots=True)
class ObservedEpoch:
    """The epoch and time that the database returned to a request sent at `asked_at` (monotonic seconds)."""

    epoch: int
    time: datetime
    asked_at: float


class PostgresCachedAnswers:
    """Implements `CachedAnswers`; `observed` is the last epoch that the database returned to this process."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """Use the database's clock unless `clock` has an instant."""
        self.observed: ObservedEpoch | None = None
        self._observed_at = 0.0
        self._manager = manager
        self._clock = clock
        took = manager.batch_sizes.observe
        self._reads = Batcher(self._read, on_batch=lambda size: took(size, "answer"))

    async def find(self, query_hash: str) -> CachedAnswer | None:
        return await self._reads.submit(query_hash)

    async def read_epoch(self) -> int:
        return await self._fetch_epoch(SELECT_EPOCH, repeatable=True)

    async def advance_epoch(self) -> int:
        return await self._fetch_epoch(ADVANCE_EPOCH, repeatable=False)

    async def _read(self, hashes: Sequence[str]) -> list[CachedAnswer | None]:
        rows = await fetch(
            self._manager, SELECT_ANSWERS, repeatable=True, hashes=list(set(hashes)), instant=self._clock.instant()
        )
        found = {row["query_hash"]: CachedAnswer(row["result"], row["expires_at"]) for row in rows}
        return [found.get(query_hash) for query_hash in hashes]

    async def _fetch_epoch(self, statement: TextClause, *, repeatable: bool) -> int:
        asked_at = time.monotonic()
        [row] = await fetch(self._manager, statement, repeatable=repeatable, name=EPOCH_NAME)
        epoch = int(row["epoch"])
        # Of two concurrent requests, the one that saw the older epoch may return last.
        if self.observed is None or epoch >= self.observed.epoch or asked_at > self._observed_at:
            self.observed, self._observed_at = ObservedEpoch(epoch, row["time"], asked_at), time.monotonic()
        return epoch
