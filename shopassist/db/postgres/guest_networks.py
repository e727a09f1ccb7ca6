"""How many new guests came from where, in PostgreSQL; they are counted where their accounts are opened."""

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres.driver import fetch_patiently
from shopassist.db.postgres.opening_statements import FORGET


class PostgresGuestNetworks:
    """Implements `GuestNetworks`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """`clock` says which day it is."""
        self._manager = manager
        self._clock = clock

    async def forget_old(self, limit: int = 1000) -> int:
        [row] = await fetch_patiently(self._manager, FORGET, limit=limit, instant=self._clock.instant())
        return int(row[0])
