"""Stored answers read by key, in PostgreSQL: concurrent look-ups share a statement."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from shopassist.db.caching import DatedAnswer
from shopassist.db.coalescer import Coalescer
from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres.driver import fetch

FIND = text("""
SELECT query_hash, result, expires_at FROM query_cache
WHERE query_hash = ANY(CAST(:hashes AS text[])) AND expires_at >= COALESCE(CAST(:instant AS timestamptz), now())
""")


class PostgresCachedAnswers:
    """Implements `DatedAnswers`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """The database's clock decides unless `clock` binds an instant."""
        self._manager = manager
        self._clock = clock
        took = manager.figures.batches.observe
        self._reads = Coalescer(self._read, took=lambda size: took(size, "answer"))

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        found = await self._reads.submit(query_hash)
        return None if found is None else found.result

    async def find_dated(self, query_hash: str) -> DatedAnswer | None:
        return await self._reads.submit(query_hash)

    async def _read(self, hashes: Sequence[str]) -> list[DatedAnswer | None]:
        rows = await fetch(
            self._manager, FIND, repeatable=True, hashes=list(set(hashes)), instant=self._clock.instant()
        )
        found = {row["query_hash"]: DatedAnswer(row["result"], row["expires_at"]) for row in rows}
        return [found.get(query_hash) for query_hash in hashes]
