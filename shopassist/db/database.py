"""`DatabaseManager`: the engine, sessions and connection pools of one database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import QueuePool

from shopassist.db.direct_pool import DIRECT_CONNECTIONS, DirectPool
from shopassist.db.dsn import apply_tls_settings, normalise_dsn
from shopassist.db.failures import BusyError, ConnectTimeoutError, ReadOnlyError
from shopassist.db.host_selection import HostSelector
from shopassist.db.resilience import Resilience
from shopassist.errors import StartupError, StorageUnavailableError
from shopassist.metrics.registry import DURATION_BOUNDS, SIZE_BOUNDS, Histogram
from shopassist.settings.database import DatabaseConfig, PoolMode
from shopassist.tracing import trace_statements

PRIMARY_SETTING, REPLICA_SETTING = "DATABASE_URL", "DATABASE_REPLICA_URL"
APPLICATION_NAME = "shopassist"
DIRECT_LOCK_SHARE = 0.8
ISOLATION_SETTINGS = {"default_transaction_isolation": "read committed"}
"""What all that is asked is written for, whatever the database's own default."""

MIN_INVALIDATION_INTERVAL_SECONDS = 1.0
"""All connections are renounced no more often than this."""


def get_time_limits(config: DatabaseConfig) -> dict[str, str]:
    """The limits that are in force on each connection, in milliseconds."""
    return {
        "statement_timeout": str(round(1000 * config.statement_timeout)),
        "lock_timeout": str(round(1000 * config.lock_timeout)),
        "idle_in_transaction_session_timeout": str(round(1000 * config.idle_transaction_timeout)),
    }


def get_role_settings(config: DatabaseConfig) -> dict[str, str]:
    """What to give the app's role, for connections through a pooler, which cannot have settings of their own.

    They serve hot statements as well, so locks are given up as soon as those must.
    """
    return ISOLATION_SETTINGS | get_time_limits(
        config.model_copy(update={"lock_timeout": get_direct_lock_timeout(config)})
    )


def get_direct_lock_timeout(config: DatabaseConfig) -> float:
    """Seconds after which a hot statement gives up a lock: before it is given up itself.

    So that a row that somebody has taken is not mistaken for a server that is gone.
    """
    return min(config.lock_timeout, DIRECT_LOCK_SHARE * config.hot_timeout)


class DatabaseCounters:
    """Seconds that somebody waited for a connection, by pool, and sizes of batches, by what is asked in them."""

    __slots__ = ("batches", "waits")

    def __init__(self) -> None:
        """Nothing happened yet."""
        self.waits = Histogram(DURATION_BOUNDS)
        self.batches = Histogram(SIZE_BOUNDS)


class DatabaseManager:
    """Engine and session factory of one database; connects when first used."""

    def __init__(self, config: DatabaseConfig, resilience: Resilience | None = None, replica: bool = False) -> None:
        """Of `replica`, which is only read from, or else of the primary. Raises `StartupError` when it has no link."""
        self.resilience = resilience or Resilience()
        self.figures = DatabaseCounters()
        link, name = (config.replica_url, REPLICA_SETTING) if replica else (config.database_url, PRIMARY_SETTING)
        if link is None:
            raise StartupError(f"{name} is not set.")
        wanted = "prefer-standby" if replica else "read-write"
        self.url = apply_tls_settings(normalise_dsn(link.get_secret_value(), name, wanted), config, name)
        self._only_read = replica
        self.companions: list[DatabaseManager] = []
        self.servers = HostSelector(self.url)
        self.resilience.breaker.suspected = self._suspected
        self._generation = 0
        self._renounced_at = -MIN_INVALIDATION_INTERVAL_SECONDS
        self.engine = self._engine(config, pool_size=config.pool_size, max_overflow=config.max_overflow)
        hot_connections = min(config.pool_size, DIRECT_CONNECTIONS)
        hot = config.model_copy(update={"lock_timeout": get_direct_lock_timeout(config)})
        self.hot_engine = self._engine(hot, pool_size=hot_connections, max_overflow=0)
        has_sessions = config.pool_mode is PoolMode.SESSION
        self.hot = DirectPool(self.hot_engine, hot_connections, config.pool_recycle, has_sessions, self._waited_hot)
        self._pool_timeout = config.pool_timeout
        self._most_connections = config.pool_size + config.max_overflow
        self.session_factory = async_sessionmaker(self.engine, expire_on_commit=False)

    def _engine(self, config: DatabaseConfig, **sizes: int) -> AsyncEngine:
        options: dict[str, Any] = {"timeout": config.connect_timeout}
        settings = {"application_name": APPLICATION_NAME}
        if config.pool_mode is PoolMode.SESSION:
            settings |= ISOLATION_SETTINGS | get_time_limits(config)
            if self._only_read:
                settings["default_transaction_read_only"] = "on"
        else:  # a pooler refuses these, and the next transaction may have a session that knows no statement of ours
            options |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        engine = create_async_engine(
            "postgresql+asyncpg://",
            **sizes,
            pool_timeout=config.pool_timeout,
            pool_recycle=config.pool_recycle,
            echo=config.echo_sql,
            hide_parameters=True,
            connect_args={"async_creator_fn": self.servers.connect, "server_settings": settings, **options},
        )
        event.listen(engine.sync_engine, "connect", self._date)
        event.listen(engine.sync_engine, "checkout", self._refuse_useless)
        trace_statements(engine.sync_engine)
        return engine

    def _date(self, _: Any, record: Any) -> None:
        record.info["generation"] = self._generation

    def _refuse_useless(self, connection: Any, record: Any, _: object) -> None:
        """Let the pool replace a connection that was closed or renounced while idle. Raises `DisconnectionError`."""
        driver = connection.driver_connection
        if driver.is_closed() or record.info["generation"] != self._generation:
            driver.terminate()
            raise DisconnectionError

    def _suspected(self, error: StorageUnavailableError) -> None:
        """Renounce all connections when another server may have taken the place of the one that they are to."""
        now = time.monotonic()
        is_likely = isinstance(error, ReadOnlyError) or self.servers.are_several
        if is_likely and now - self._renounced_at >= MIN_INVALIDATION_INTERVAL_SECONDS:
            self._renounced_at = now
            self._generation += 1
            self.hot.renounce()
            self.servers.forget()

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
        """Raises `BusyError` when all connections stay taken, and `ConnectTimeoutError` when no new one comes about."""
        began = time.monotonic()
        try:
            with self.resilience.waiting() as seconds:
                async with asyncio.timeout(min(seconds, self._pool_timeout)):
                    return await session.connection()
        except (TimeoutError, PoolTimeoutError) as error:
            taken = isinstance(self.engine.pool, QueuePool) and self.engine.pool.checkedout() >= self._most_connections
            raise (BusyError if taken else ConnectTimeoutError) from error
        finally:
            self.figures.waits.observe(time.monotonic() - began, "units")

    @asynccontextmanager
    async def driver_connection(self) -> AsyncIterator[Any]:
        """A connection of asyncpg itself, on which each statement is a transaction of its own.

        For what is hot: without SQLAlchemy's part a statement costs a third of the CPU. Raises what asyncpg raises.
        """
        async with self.hot.taken() as kept:
            yield kept.driver

    async def value(self, query: str) -> Any:
        """What a query without parameters gives, in one round trip, past the policy. Raises what the driver raises."""
        async with asyncio.timeout(self.resilience.limits.hot_seconds), self.driver_connection() as connection:
            return await connection.fetchval(query)

    async def ping(self) -> None:
        """One round trip. Raises `StorageUnavailableError`."""
        await self.resilience.run(lambda: self.value("SELECT 1"), repeatable=True)

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

    def _waited_hot(self, seconds: float) -> None:
        self.figures.waits.observe(seconds, "hot")

    def most_connections(self) -> dict[tuple[str, ...], float]:
        """How many each pool may open."""
        return {("units",): float(self._most_connections), ("hot",): float(self.hot.size)}

    async def close(self) -> None:
        """Close every connection, and those of companions."""
        for companion in self.companions:
            await companion.close()
        await self.hot.close()
        await self.engine.dispose()
