"""Opens asyncpg connections to the right server of a DSN, and pools those for frequent single statements."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog
from sqlalchemy import URL

from shopassist.db.dsn import build_driver_dsn, get_hosts
from shopassist.db.failures import NotSentError, ServerProcess

logger = structlog.get_logger(__name__)

HEAD_START_SECONDS = 0.15
"""How long only the last right server is asked."""

SETTLING_SECONDS = 0.3
"""How long a writable server waits for another one to answer that it is writable too."""

TIMELINE_QUERY = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
WRITABLE_TARGETS = ("read-write", "primary")
CONNECTION_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)

Attempts = dict[asyncio.Task[asyncpg.Connection], int]
"""Connection attempts and the numbers of their hosts."""


class HostSelector:
    """Opens connections to the server of a DSN that meets its `target_session_attrs`.

    asyncpg tries hosts one after another, and each silent host costs its whole time limit, which is longer than a
    request may take. This class asks the last right server first, and soon after that all others concurrently.
    """

    def __init__(self, url: URL) -> None:
        """`url` must be normalised."""
        self.hosts = get_hosts(url)
        self.has_several_hosts = len(self.hosts) > 1
        self._dsn = build_driver_dsn(url)
        self._target = str(url.query.get("target_session_attrs", "any"))
        self.current: int | None = None
        """The number of the host of the newest connection, if there are several."""

    def forget(self) -> None:
        """Treat all servers alike at the next connection."""
        self.current = None

    async def connect(self, **options: Any) -> asyncpg.Connection:
        """Open a connection; `options` are asyncpg's. Raises asyncpg's errors, and `NotSentError` if no server fits."""
        try:
            if not self.has_several_hosts:
                return await self._open(0, self._target, options)
            if self._target != "prefer-standby":
                return await self._race(self._target, options)
            try:
                return await self._race("standby", options)
            except (*CONNECTION_ERRORS, asyncpg.TargetServerAttributeNotMatched):
                return await self._race("any", options)
        except asyncpg.TargetServerAttributeNotMatched as error:
            raise NotSentError from error

    async def _race(self, target: str, options: dict[str, Any]) -> asyncpg.Connection:
        attempts: Attempts = {}
        chosen = None
        try:
            if self.current is not None:
                attempts[asyncio.create_task(self._open(self.current, target, options))] = self.current
                await asyncio.wait(attempts, timeout=HEAD_START_SECONDS)
            if not _list_opened(attempts):
                for number in set(range(len(self.hosts))).difference(attempts.values()):
                    attempts[asyncio.create_task(self._open(number, target, options))] = number
            chosen = await _choose(attempts, target)
            if attempts[chosen] != self.current:
                self.current = attempts[chosen]
                host = self.hosts[self.current]
                logger.info("database_server", host=host.name, port=host.port)
            return chosen.result()
        finally:
            for task in attempts:
                if task is not chosen:
                    _discard_connection(task)

    async def _open(self, number: int, target: str, options: dict[str, Any]) -> asyncpg.Connection:
        host = self.hosts[number]
        return await asyncpg.connect(
            dsn=self._dsn, host=host.name, port=host.port, target_session_attrs=target, **options
        )


async def _choose(attempts: Attempts, target: str) -> asyncio.Task[asyncpg.Connection]:
    """Return the first connection that is opened. Raises the most telling error if there is none.

    Of two writable servers choose the one on the newer timeline: an old primary that restarts after a failover does not
    know that it has been replaced.
    """
    waiting = set(attempts)
    while waiting and not _list_opened(attempts):
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if waiting and target in WRITABLE_TARGETS:
        await asyncio.wait(waiting, timeout=SETTLING_SECONDS)
    opened = _list_opened(attempts)
    if not opened:
        raise min(filter(None, (task.exception() for task in attempts)), key=_rank_error)
    if len(opened) == 1 or target not in WRITABLE_TARGETS:
        return opened[0]
    timelines = {task: await _fetch_timeline(task.result()) for task in opened}
    return max(opened, key=timelines.__getitem__)


def _list_opened(attempts: Attempts) -> list[asyncio.Task[asyncpg.Connection]]:
    return [task for task in attempts if task.done() and not task.exception()]


def _rank_error(error: BaseException) -> int:
    """Prefer a server's refusal to a network error, because it says more."""
    if isinstance(error, asyncpg.PostgresError):
        return 0
    return 1 if isinstance(error, OSError) else 2


async def _fetch_timeline(connection: asyncpg.Connection) -> int:
    """Return the server's timeline, which each promotion increases."""
    with suppress(*CONNECTION_ERRORS):
        return int(await connection.fetchval(TIMELINE_QUERY))
    return 0


def _discard_connection(task: asyncio.Task[asyncpg.Connection]) -> None:
    if not task.done():
        task.cancel()
        task.add_done_callback(_discard_connection)
    elif not task.cancelled() and not task.exception():
        task.result().terminate()


DIRECT_CONNECTIONS = 8
DIRECT_SETTINGS = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
"""Plan statements over arrays once for all batch sizes, and so that they stay fast when an empty table fills up.

Not used behind a pooler, which keeps no plans and shares sessions."""

SERVER_PROCESS_QUERY = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class PooledConnection:
    """A pooled asyncpg connection. `server_process` is None behind a pooler."""

    driver: asyncpg.Connection
    server_process: ServerProcess | None
    generation: int
    opened_at: float

    @property
    def pid(self) -> int | None:
        """Return the id of the server process, None behind a pooler."""
        return None if self.server_process is None else self.server_process.pid

    async def close(self) -> None:
        """Close it, within a time limit, since the server may not answer."""
        with suppress(*CONNECTION_ERRORS):
            await self.driver.close(timeout=CLOSE_SECONDS)


class DirectPool:
    """A pool of `size` connections that bypasses SQLAlchemy. Each serves one statement at a time."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        size: int,
        recycle_seconds: int,
        has_sessions: bool,
        on_wait: Callable[[float], None],
    ) -> None:
        """Set up each connection if it `has_sessions` of its own. `on_wait` gets the seconds of each wait."""
        self.size = size
        self._connect = connect
        self._recycle_seconds = recycle_seconds
        self._has_sessions = has_sessions
        self._on_wait = on_wait
        self._slots = asyncio.Semaphore(size)
        self._in_use = 0
        self._idle: list[PooledConnection] = []
        self._generation = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledConnection]:
        """Lend a connection for the length of the block. Raises `NotSentError` or OSError if none can be opened."""
        started_at = time.monotonic()
        async with self._slots:
            self._on_wait(time.monotonic() - started_at)
            pooled = await self._take_idle() or await self._open()
            self._in_use += 1
            try:
                yield pooled
            except BaseException as error:
                if not isinstance(error, Exception):
                    # A cancelled caller leaves the connection in the middle of a statement.
                    pooled.driver.terminate()
                raise
            finally:
                self._in_use -= 1
                if not pooled.driver.is_closed():
                    self._idle.append(pooled)

    @property
    def is_full(self) -> bool:
        """Return whether all connections are in use."""
        return self._slots.locked()

    def get_status(self) -> dict[str, int]:
        """Return the number of connections, in the terms of SQLAlchemy's pools."""
        return {"size": self.size, "checked_out": self._in_use, "idle": len(self._idle), "overflow": 0}

    def invalidate(self) -> None:
        """Do not reuse connections that were opened until now."""
        self._generation += 1

    async def close(self) -> None:
        """Close all idle connections."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(pooled.close() for pooled in idle))

    async def _take_idle(self) -> PooledConnection | None:
        while self._idle:
            pooled = self._idle.pop()
            if pooled.generation != self._generation:
                pooled.driver.terminate()  # its server may not answer
            elif 0 <= self._recycle_seconds < time.monotonic() - pooled.opened_at:
                await pooled.close()
            elif not pooled.driver.is_closed():
                return pooled
        return None

    async def _open(self) -> PooledConnection:
        generation = self._generation
        try:
            driver = await self._connect()
            try:
                server_process = await self._prepare(driver)
            except BaseException:
                driver.terminate()
                raise
        except asyncpg.PostgresError as error:
            raise NotSentError from error
        return PooledConnection(driver, server_process, generation, time.monotonic())

    async def _prepare(self, driver: asyncpg.Connection) -> ServerProcess | None:
        for json_type in ("json", "jsonb"):
            # As SQLAlchemy does: statements write JSON as text and read it as Python objects.
            await driver.set_type_codec(json_type, encoder=str, decoder=json.loads, schema="pg_catalog")
        if not self._has_sessions:
            return None
        await driver.execute(DIRECT_SETTINGS)
        return ServerProcess(*await driver.fetchrow(SERVER_PROCESS_QUERY))
