"""Leases in PostgreSQL."""

from datetime import timedelta

from sqlalchemy import text

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres.driver import fetch

ACQUIRE = text("""
INSERT INTO leases AS l (name, holder, expires_at)
SELECT :name, :holder, COALESCE(CAST(:instant AS timestamptz), now()) + CAST(:lifetime AS interval)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE l.holder = excluded.holder OR l.expires_at <= COALESCE(CAST(:instant AS timestamptz), now())
RETURNING holder
""")

RELEASE = text("DELETE FROM leases WHERE name = :name AND holder = :holder")

HOLDER = text("""
SELECT holder FROM leases WHERE name = :name AND expires_at > COALESCE(CAST(:instant AS timestamptz), now())
""")


class PostgresLeases:
    """Implements `Leases`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """The database's clock decides unless `clock` binds an instant."""
        self._manager = manager
        self._clock = clock

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        parameters = {"name": name, "holder": holder, "lifetime": lifetime, "instant": self._clock.instant()}
        return bool(await fetch(self._manager, ACQUIRE, repeatable=True, **parameters))

    async def release(self, name: str, holder: str) -> None:
        await fetch(self._manager, RELEASE, repeatable=True, name=name, holder=holder)

    async def holder(self, name: str) -> str | None:
        rows = await fetch(self._manager, HOLDER, repeatable=True, name=name, instant=self._clock.instant())
        return str(rows[0]["holder"]) if rows else None
