"""The connection to PostgreSQL: engine, sessions, pool figures."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection, QueuePool
from sqlalchemy.util.concurrency import greenlet_spawn

from shopassist.db.resilience.failures import BusyError, TooLateError
from shopassist.db.resilience.policy import Resilience
from shopassist.db.tls import connect, secured
from shopassist.errors import StartupError
from shopassist.settings import DatabaseConfig

LIBPQ_TO_ASYNCPG = {"sslmode": "ssl", "application_name": None, "connect_timeout": None}
"""Parameters that a libpq link may carry, and asyncpg's name for them; None where we set the matter ourselves."""

HOT_CONNECTIONS = 8
HOT_LOCK_SHARE = 0.8
HOT_SETTINGS = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
"""How hot statements over arrays are planned: once, whatever the size of a batch, and so that they stay fast when a
table that was empty at that moment fills up. Left out where PgBouncer would hand the session to somebody else, which
`statement_cache_size=0` in the link says."""


def normalised(url: str) -> URL:
    """`url` for SQLAlchemy and asyncpg, whichever of its usual spellings it came in.

    Raises `StartupError` when it is no PostgreSQL link.
    """
    try:
        parsed = make_url(url)
    except Exception:  # noqa: BLE001 - the parser's own text would show the password
        raise StartupError("DATABASE_URL is not a link of the form postgresql://user:password@host/database.") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise StartupError("DATABASE_URL must be a PostgreSQL link: postgresql://user:password@host/database.")
    query = {LIBPQ_TO_ASYNCPG.get(key, key): value for key, value in parsed.query.items()}
    return parsed.set(drivername="postgresql+asyncpg", query={k: v for k, v in query.items() if k is not None})


def driver_link(url: URL) -> str:
    """A normalised link as asyncpg itself takes it."""
    query = {("sslmode" if key == "ssl" else key): value for key, value in url.query.items()}
    return url.set(drivername="postgresql", query=query).render_as_string(hide_password=False)


class Kept:
    """A connection for hot statements, kept between them: fetching it from a pool costs as much as a statement."""

    __slots__ = ("_began", "_pooled", "driver")

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        """It was just opened."""
        self._pooled = pooled
        self._began = time.monotonic()
        self.driver: Any = pooled.driver_connection

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


def server_settings(config: DatabaseConfig) -> dict[str, str]:
    """What each connection asks of its session on the server; times in milliseconds."""
    return {
        "application_name": "shopassist",
        "statement_timeout": str(round(1000 * config.statement_timeout)),
        "lock_timeout": str(round(1000 * config.lock_timeout)),
        "idle_in_transaction_session_timeout": str(round(1000 * config.idle_transaction_timeout)),
    }


def refuse_closed(connection: Any, *_: object) -> None:
    """Let the pool replace a connection that was closed while it was idle. Raises `DisconnectionError`."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


class DatabaseManager:
    """Engine and session factory of one database; connects when first used."""

    def __init__(self, config: DatabaseConfig, resilience: Resilience | None = None) -> None:
        """Raises `StartupError` when `config` names no PostgreSQL database."""
        self.resilience = resilience or Resilience()
        if config.database_url is None:
            raise StartupError("DATABASE_URL is not set.")
        self.url = secured(normalised(config.database_url.get_secret_value()), config)
        self.engine = self._engine(config, pool_size=config.pool_size, max_overflow=config.max_overflow)
        hot_connections = min(config.pool_size, HOT_CONNECTIONS)
        # A lock is given up before the statement is, so that a taken row is not mistaken for a server that is gone.
        hot = config.model_copy(update={"lock_timeout": min(config.lock_timeout, HOT_LOCK_SHARE * config.hot_timeout)})
        self.hot_engine = self._engine(hot, pool_size=hot_connections, max_overflow=0)
        event.listen(self.hot_engine.sync_engine, "connect", self._prepare)
        self._hot = asyncio.Semaphore(hot_connections)
        self._kept: list[Kept] = []
        self._recycle = config.pool_recycle
        self._pool_timeout = config.pool_timeout
        self._most_connections = config.pool_size + config.max_overflow
        self.session_factory = async_sessionmaker(self.engine, expire_on_commit=False)

    def _engine(self, config: DatabaseConfig, **sizes: int) -> AsyncEngine:
        engine = create_async_engine(
            "postgresql+asyncpg://",
            **sizes,
            pool_timeout=config.pool_timeout,
            pool_recycle=config.pool_recycle,
            echo=config.echo_sql,
            hide_parameters=True,
            connect_args={
                "async_creator_fn": partial(connect, driver_link(self.url)),
                "timeout": config.connect_timeout,
                "server_settings": server_settings(config),
            },
        )
        event.listen(engine.sync_engine, "checkout", refuse_closed)
        return engine

    def _prepare(self, connection: Any, _: object) -> None:
        if self.url.query.get("statement_cache_size") != "0":
            connection.run_async(lambda driver: driver.execute(HOT_SETTINGS))

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A session with a transaction that commits on a clean exit of the block and is rolled back otherwise.

        Raises what the driver raises, `BusyError` when no connection was free in time, and `ConnectionLostError` when
        a request's time is up.
        """
        async with self.session_factory() as session:
            connection = await self._connected(session)
            driver: Any = (await connection.get_raw_connection()).driver_connection
            with self.resilience.unit(driver.terminate):
                yield session
                await session.commit()

    async def _connected(self, session: AsyncSession) -> AsyncConnection:
        """Raises `BusyError` when all connections stay taken, and `TooLateError` when no new one comes about."""
        try:
            with self.resilience.waiting() as seconds:
                async with asyncio.timeout(min(seconds, self._pool_timeout)):
                    return await session.connection()
        except (TimeoutError, PoolTimeoutError) as error:
            taken = isinstance(self.engine.pool, QueuePool) and self.engine.pool.checkedout() >= self._most_connections
            raise (BusyError if taken else TooLateError) from error

    @asynccontextmanager
    async def driver_connection(self) -> AsyncIterator[Any]:
        """A connection of asyncpg itself, on which each statement is a transaction of its own.

        For what is hot: without SQLAlchemy's part a statement costs a third of the CPU. Raises what asyncpg raises.
        """
        async with self._hot:
            kept = self._kept.pop() if self._kept else None
            while kept is None or kept.is_over(self._recycle):
                if kept:
                    await kept.end()
                kept = self._kept.pop() if self._kept else Kept(await self.hot_engine.raw_connection())
            try:
                yield kept.driver
            except Exception:
                self._kept.append(kept)
                raise
            except BaseException:
                # Whoever is cancelled, or out of time, leaves a connection in the middle of a statement.
                await kept.cut()
                raise
            self._kept.append(kept)

    async def ping(self) -> None:
        """One round trip. Raises `StorageUnavailableError`."""

        async def once() -> None:
            async with asyncio.timeout(self.resilience.limits.hot_seconds), self.driver_connection() as connection:
                await connection.fetchval("SELECT 1")

        await self.resilience.run(once, repeatable=True)

    def pool_status(self) -> dict[str, Any]:
        """Connections of the pool: its size, how many are out, idle, and beyond the size."""
        pool = self.engine.pool
        if not isinstance(pool, QueuePool):
            return {"class": type(pool).__name__}
        return {
            "size": pool.size(),
            "checked_out": pool.checkedout(),
            "idle": pool.checkedin(),
            "overflow": max(pool.overflow(), 0),
        }

    async def close(self) -> None:
        """Close every connection."""
        while self._kept:
            await self._kept.pop().end()
        await self.hot_engine.dispose()
        await self.engine.dispose()
