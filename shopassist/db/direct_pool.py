"""A pool of asyncpg connections for frequent single statements, which bypasses the pool of SQLAlchemy."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util.concurrency import greenlet_spawn

from shopassist.db.failures import ServerProcess

DIRECT_CONNECTIONS = 8
DIRECT_SETTINGS = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
"""Plan statements over arrays once for all batch sizes, and so that they stay fast when an empty table fills up.

Not used behind a pooler, which keeps no plans and shares sessions."""

SERVER_PROCESS_QUERY = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


class PooledConnection:
    """A pooled asyncpg connection. `server_process` is None behind a pooler."""

    __slots__ = ("_opened_at", "_pooled", "driver", "generation", "server_process")

    def __init__(self, pooled: PoolProxiedConnection, generation: int) -> None:
        self._pooled = pooled
        self._opened_at = time.monotonic()
        self.generation = generation
        self.driver: Any = pooled.driver_connection
        self.server_process: ServerProcess | None = pooled.info.get("server_process")

    @property
    def pid(self) -> int | None:
        """Return the id of the server process, None behind a pooler."""
        return None if self.server_process is None else self.server_process.pid

    def is_expired(self, recycle_seconds: int) -> bool:
        """Return whether it was closed while idle, or is older than `recycle_seconds`."""
        return self.driver.is_closed() or 0 <= recycle_seconds < time.monotonic() - self._opened_at

    async def close(self) -> None:
        """Close it."""
        await greenlet_spawn(self._pooled.invalidate)

    async def terminate(self) -> None:
        """Close it without waiting for the server, which may not answer."""
        self.driver.terminate()
        await self.close()


class DirectPool:
    """A pool of `size` connections. Each serves one statement at a time."""

    def __init__(
        self,
        engine: AsyncEngine,
        size: int,
        recycle_seconds: int,
        has_sessions: bool,
        on_wait: Callable[[float], None],
    ) -> None:
        """Set up each connection if it `has_sessions` of its own. `on_wait` gets the seconds of each wait."""
        self.size = size
        self._on_wait = on_wait
        self._in_use = 0
        self._engine = engine
        self._recycle_seconds = recycle_seconds
        self._slots = asyncio.Semaphore(size)
        self._idle: list[PooledConnection] = []
        self._generation = 0
        if has_sessions:
            event.listen(engine.sync_engine, "connect", _prepare_connection)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledConnection]:
        """Lend a connection for the length of the block. Raises asyncpg's errors."""
        started_at = time.monotonic()
        async with self._slots:
            self._on_wait(time.monotonic() - started_at)
            pooled = await self._get_connection()
            self._in_use += 1
            try:
                yield pooled
            except Exception:
                self._idle.append(pooled)
                raise
            except BaseException:
                # A cancelled caller leaves the connection in the middle of a statement.
                await pooled.terminate()
                raise
            finally:
                self._in_use -= 1
            self._idle.append(pooled)

    def get_status(self) -> dict[str, int]:
        """Return the number of connections, in the terms of SQLAlchemy's pools."""
        return {"size": self.size, "checked_out": self._in_use, "idle": len(self._idle), "overflow": 0}

    @property
    def is_full(self) -> bool:
        """Return whether all connections are in use."""
        return self._slots.locked()

    def invalidate(self) -> None:
        """Do not reuse connections that were opened until now."""
        self._generation += 1

    async def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            await self._idle.pop().close()
        await self._engine.dispose()

    async def _get_connection(self) -> PooledConnection:
        while self._idle:
            pooled = self._idle.pop()
            if pooled.generation != self._generation:
                await pooled.terminate()
            elif pooled.is_expired(self._recycle_seconds):
                await pooled.close()
            else:
                return pooled
        generation = self._generation
        return PooledConnection(await self._engine.raw_connection(), generation)


def _prepare_connection(connection: Any, record: Any) -> None:
    connection.run_async(lambda driver: driver.execute(DIRECT_SETTINGS))
    pid, started_at = connection.run_async(lambda driver: driver.fetchrow(SERVER_PROCESS_QUERY))
    record.info["server_process"] = ServerProcess(pid, started_at)
