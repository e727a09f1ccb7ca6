"""The connection to PostgreSQL: engine, sessions, pool figures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import QueuePool

from shopassist.db.hot import HOT_CONNECTIONS, HotConnections
from shopassist.db.links import normalised
from shopassist.db.resilience.failures import BusyError, TooLateError
from shopassist.db.resilience.policy import Resilience
from shopassist.errors import StartupError
from shopassist.settings import DatabaseConfig

HOT_LOCK_SHARE = 0.8


def server_settings(config: DatabaseConfig) -> dict[str, str]:
    """What each connection asks of its session on the server; times in milliseconds."""
    return {
        "application_name": "shopassist",
        "statement_timeout": str(round(1000 * config.statement_timeout)),
        "lock_timeout": str(round(1000 * config.lock_timeout)),
        "idle_in_transaction_session_timeout": str(round(1000 * config.idle_transaction_timeout)),
    }


def hot_lock_timeout(config: DatabaseConfig) -> float:
    """Seconds after which a hot statement gives up a lock: before it is given up itself.

    So that a row that somebody has taken is not mistaken for a server that is gone.
    """
    return min(config.lock_timeout, HOT_LOCK_SHARE * config.hot_timeout)


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
        self.url = normalised(config.database_url.get_secret_value())
        self.engine = self._engine(config, pool_size=config.pool_size, max_overflow=config.max_overflow)
        hot_connections = min(config.pool_size, HOT_CONNECTIONS)
        hot = config.model_copy(update={"lock_timeout": hot_lock_timeout(config)})
        self.hot_engine = self._engine(hot, pool_size=hot_connections, max_overflow=0)
        self.hot = HotConnections(self.hot_engine, hot_connections, config.pool_recycle, has_sessions=True)
        self._pool_timeout = config.pool_timeout
        self._most_connections = config.pool_size + config.max_overflow
        self.session_factory = async_sessionmaker(self.engine, expire_on_commit=False)

    def _engine(self, config: DatabaseConfig, **sizes: int) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            **sizes,
            pool_timeout=config.pool_timeout,
            pool_recycle=config.pool_recycle,
            echo=config.echo_sql,
            hide_parameters=True,
            connect_args={"timeout": config.connect_timeout, "server_settings": server_settings(config)},
        )
        event.listen(engine.sync_engine, "checkout", refuse_closed)
        return engine

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
        async with self.hot.taken() as kept:
            yield kept.driver

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
        await self.hot.close()
        await self.engine.dispose()
