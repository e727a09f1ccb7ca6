"""How often the query cache was cleared, in PostgreSQL."""

from sqlalchemy import text

from shopassist.db.manager import DatabaseManager
from shopassist.db.postgres.driver import fetch

CURRENT = text("SELECT epoch FROM cache_epochs WHERE name = :name")

ADVANCE = text("""
INSERT INTO cache_epochs AS e (name, epoch) VALUES (:name, 1)
ON CONFLICT (name) DO UPDATE SET epoch = e.epoch + 1
RETURNING epoch
""")

ANSWERS = "answers"


class PostgresCacheEpochs:
    """Implements `CacheEpochs`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """The database of `manager` counts."""
        self._manager = manager

    async def current(self) -> int:
        rows = await fetch(self._manager, CURRENT, repeatable=True, name=ANSWERS)
        return int(rows[0]["epoch"]) if rows else 0

    async def advance(self) -> int:
        rows = await fetch(self._manager, ADVANCE, name=ANSWERS)
        return int(rows[0]["epoch"])
