"""Health: whether the database answers, and what state the parts are in."""

import asyncio
import time
from typing import Any, Protocol

from pydantic import BaseModel

from shopassist.settings import Storage

PATIENCE_SECONDS = 2


class Database(Protocol):
    """What can be asked of a database's connection."""

    async def ping(self) -> None: ...

    def pool_status(self) -> dict[str, Any]: ...


class DatabaseHealth(BaseModel):
    """Whether the database answers, and how fast (milliseconds)."""

    status: str
    storage: str
    latency_ms: float | None = None


class HealthService:
    """Looks at the parts. Without a database (in memory) there is nothing that can be away."""

    def __init__(self, storage: Storage, database: Database | None) -> None:
        """`database` is None where state is in memory."""
        self._storage = storage
        self._database = database

    async def database(self) -> DatabaseHealth:
        """One round trip, bounded in time."""
        if self._database is None:
            return DatabaseHealth(status="healthy", storage=self._storage.value)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._database.ping()
        except Exception:  # noqa: BLE001 - whatever keeps the database from answering, it is not healthy
            return DatabaseHealth(status="unhealthy", storage=self._storage.value)
        latency = round(1000 * (time.perf_counter() - began), 2)
        return DatabaseHealth(status="healthy", storage=self._storage.value, latency_ms=latency)

    def pool(self) -> dict[str, Any] | None:
        """Connections of the pool, or None in memory."""
        return None if self._database is None else self._database.pool_status()
