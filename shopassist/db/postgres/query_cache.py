"""Stored answers in PostgreSQL."""

from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, text
from sqlalchemy import select as select_columns
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select

from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import CacheContents, QueryCache

# Who stores an answer again at this moment keeps it.
FORGET = text("""
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
        return cast("CursorResult[Any]", await self.session.execute(FORGET, parameters)).rowcount

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
