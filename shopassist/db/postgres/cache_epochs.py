"""How often the query cache was cleared, in PostgreSQL."""

import time

from sqlalchemy import TextClause, text

from shopassist.db.caching import Seen
from shopassist.db.manager import DatabaseManager
from shopassist.db.postgres.driver import fetch

CURRENT = text("""
SELECT COALESCE((SELECT epoch FROM cache_epochs WHERE name = :name), 0) AS epoch, clock_timestamp() AS time
""")

ADVANCE = text("""
INSERT INTO cache_epochs AS e (name, epoch) VALUES (:name, 1)
ON CONFLICT (name) DO UPDATE SET epoch = e.epoch + 1
RETURNING epoch, clock_timestamp() AS time
""")

ANSWERS = "answers"


class PostgresCacheEpochs:
    """Implements `CacheEpochs` and `WatchedEpochs`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """The database of `manager` counts."""
        self._manager = manager
        self._seen: Seen | None = None
        self._answered_at = 0.0

    @property
    def seen(self) -> Seen | None:
        return self._seen

    async def current(self) -> int:
        return await self._ask(CURRENT, repeatable=True)

    async def advance(self) -> int:
        return await self._ask(ADVANCE, repeatable=False)

    async def _ask(self, statement: TextClause, *, repeatable: bool) -> int:
        asked_at = time.monotonic()
        [row] = await fetch(self._manager, statement, repeatable=repeatable, name=ANSWERS)
        epoch = int(row["epoch"])
        # Of two answers that were on their way at once, the one of before a clearing may come last.
        if self._seen is None or epoch >= self._seen.epoch or asked_at > self._answered_at:
            self._seen, self._answered_at = Seen(epoch, row["time"], asked_at), time.monotonic()
        return epoch
