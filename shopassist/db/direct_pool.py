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
"""How hot statements over arrays are planned: once, whatever the size of a batch, and so that they stay fast when a
table that was empty at that moment fills up. Behind a pooler no plan is kept and a session is not ours: left out."""

SERVER_PROCESS_QUERY = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


class PooledConnection:
    """A connection that is kept; `backend` is who serves it, or None where that is not known."""

    __slots__ = ("_began", "_pooled", "backend", "driver", "generation")

    def __init__(self, pooled: PoolProxiedConnection, generation: int) -> None:
        """It was just opened."""
        self._pooled = pooled
        self._began = time.monotonic()
        self.generation = generation
        self.driver: Any = pooled.driver_connection
        self.backend: ServerProcess | None = pooled.info.get("backend")

    def is_over(self, recycle_seconds: int) -> bool:
        """Whether it was closed while it was idle, or is to be replaced."""
        return self.driver.is_closed() or 0 <= recycle_seconds < time.monotonic() - self._began

    async def end(self) -> None:
        """Close it."""
        await greenlet_spawn(self._pooled.invalidate)

    async def cut(self) -> None:
        """Close it without waiting for the server, which may not answer."""
        self.driver.terminate()
        await self.end()


class DirectPool:
    """As many as `engine` has; each serves one statement at a time."""

    def __init__(
        self,
        engine: AsyncEngine,
        size: int,
        recycle_seconds: int,
        has_sessions: bool,
        waited: Callable[[float], None],
    ) -> None:
        """With `has_sessions` each connection is a server's session of its own, which can be set up and told apart.

        `waited` is told the seconds that each wait for one took.
        """
        self.size = size
        self._waited = waited
        self._in_use = 0
        self._engine = engine
        self._recycle = recycle_seconds
        self._places = asyncio.Semaphore(size)
        self._kept: list[PooledConnection] = []
        self._generation = 0
        if has_sessions:
            event.listen(engine.sync_engine, "connect", _prepare_connection)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[PooledConnection]:
        """One of them for the length of the block. Raises what asyncpg raises."""
        began = time.monotonic()
        async with self._places:
            self._waited(time.monotonic() - began)
            kept = await self._next()
            self._in_use += 1
            try:
                yield kept
            except Exception:
                self._kept.append(kept)
                raise
            except BaseException:
                # Whoever is cancelled, or out of time, leaves a connection in the middle of a statement.
                await kept.cut()
                raise
            finally:
                self._in_use -= 1
            self._kept.append(kept)

    def status(self) -> dict[str, int]:
        """How many there are, in use and idle, as pools of SQLAlchemy have it."""
        return {"size": self.size, "checked_out": self._in_use, "idle": len(self._kept), "overflow": 0}

    def renounce(self) -> None:
        """Use no connection again that was opened until now."""
        self._generation += 1

    async def close(self) -> None:
        """Close them."""
        while self._kept:
            await self._kept.pop().end()
        await self._engine.dispose()

    async def _next(self) -> PooledConnection:
        while self._kept:
            kept = self._kept.pop()
            if kept.generation != self._generation:
                await kept.cut()
            elif kept.is_over(self._recycle):
                await kept.end()
            else:
                return kept
        generation = self._generation
        return PooledConnection(await self._engine.raw_connection(), generation)


def _prepare_connection(connection: Any, record: Any) -> None:
    connection.run_async(lambda driver: driver.execute(DIRECT_SETTINGS))
    pid, began = connection.run_async(lambda driver: driver.fetchrow(SERVER_PROCESS_QUERY))
    record.info["backend"] = ServerProcess(pid, began)
