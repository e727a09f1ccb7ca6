"""Leases in PostgreSQL."""

from datetime import timedelta

from sqlalchemy import text

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.resilience import translated

ACQUIRE = text("""
INSERT INTO leases AS l (name, holder, expires_at)
SELECT :name, :holder, COALESCE(CAST(:instant AS timestamptz), now()) + CAST(:lifetime AS interval)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE l.holder = excluded.holder OR l.expires_at <= COALESCE(CAST(:instant AS timestamptz), now())
RETURNING holder
""")

RELEASE = text("DELETE FROM leases WHERE name = :name AND holder = :holder")


class PostgresLeases:
    """Implements `Leases`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """The database's clock decides unless `clock` binds an instant."""
        self._manager = manager
        self._clock = clock

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        parameters = {"name": name, "holder": holder, "lifetime": lifetime, "instant": self._clock.instant()}
        with translated():
            async with self._manager.statement_connection() as connection:
                return (await connection.execute(ACQUIRE, parameters)).one_or_none() is not None

    async def release(self, name: str, holder: str) -> None:
        with translated():
            async with self._manager.statement_connection() as connection:
                await connection.execute(RELEASE, {"name": name, "holder": holder})
