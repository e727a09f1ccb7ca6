"""The engine, sessions, connection pools, units of work and base repository of one database."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Generic

from sqlalchemy import ColumnElement, cast, event, func, literal, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from shopassist.db.columns import Timestamp
from shopassist.db.connections import DIRECT_CONNECTIONS, DirectPool, HostSelector
from shopassist.db.dsn import apply_tls_settings, normalise_dsn
from shopassist.db.failures import BusyError, ConnectionLostError, ConnectTimeoutError, ReadOnlyError, translate_errors
from shopassist.db.ports import Clock, Repositories, Result, SystemClock, TransactionBody
from shopassist.db.resilience import Resilience, ResilienceLimits
from shopassist.errors import StartupError, StorageUnavailableError
from shopassist.metrics import DURATION_BOUNDS, SIZE_BOUNDS, Histogram
from shopassist.settings.database import DatabaseConfig, PoolMode
from shopassist.tracing import trace_statements

PRIMARY_SETTING, REPLICA_SETTING = "DATABASE_URL", "DATABASE_REPLICA_URL"
APPLICATION_NAME = "shopassist"
DIRECT_LOCK_SHARE = 0.9
ISOLATION_SETTINGS = {"default_transaction_isolation": "read committed"}
"""All statements are written for this level, whatever the default of the database."""

ADD_EXTENSION_SCHEMA = text("""
    SELECT set_config(
        'search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), quote_ident(n.nspname)), :is_local
    )
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_trgm' AND n.nspname <> ALL (current_schemas(false))
""")
"""Find operators and functions also where a hoster has its extensions in a schema of their own."""

PROCESSES_AT_WORK_QUERY = "SELECT pid FROM pg_stat_activity WHERE usename = current_user AND state <> 'idle'"

MIN_INVALIDATION_INTERVAL_SECONDS = 1.0
"""Minimum time between two invalidations of all connections."""


def get_time_limits(config: DatabaseConfig) -> dict[str, str]:
    """Return the time limits of each connection, in milliseconds."""
    return {
        "statement_timeout": str(round(1000 * config.statement_timeout)),
        "lock_timeout": str(round(1000 * config.lock_timeout)),
        "idle_in_transaction_session_timeout": str(round(1000 * config.idle_transaction_timeout)),
    }


def get_role_settings(config: DatabaseConfig) -> dict[str, str]:
    """Return the settings of the app's role, for connections through a pooler, which cannot set their own.

    Such connections also serve direct statements, hence their shorter lock time-out.
    """
    return ISOLATION_SETTINGS | get_time_limits(shorten_lock_timeout(config))


def shorten_lock_timeout(config: DatabaseConfig) -> DatabaseConfig:
    """Return the configuration for direct statements: their lock time-out is shorter than their own time limit."""
    limit = DIRECT_LOCK_SHARE * ResilienceLimits.from_settings(config).work_seconds
    return config.model_copy(update={"lock_timeout": min(config.lock_timeout, limit)})


def get_connect_options(config: DatabaseConfig, is_read_only: bool) -> dict[str, Any]:
    """Return asyncpg's options for the connections of a pool."""
    settings = {"application_name": APPLICATION_NAME}
    options: dict[str, Any] = {"timeout": config.connect_timeout, "server_settings": settings}
    if config.pool_mode is PoolMode.TRANSACTION:
        # A pooler refuses settings, and the next transaction may run in a session without our statements.
        return options | {"statement_cache_size": 0}
    settings |= ISOLATION_SETTINGS | get_time_limits(config)
    if is_read_only:
        settings["default_transaction_read_only"] = "on"
    return options


class DatabaseManager:
    """Engine and session factory of one database; connects when first used."""

    def __init__(self, config: DatabaseConfig, resilience: Resilience | None = None, replica: bool = False) -> None:
        """Use the read-only `replica` or the primary. Raises `StartupError` if its DSN is not set or not valid."""
        self.resilience = resilience or Resilience()
        self.waits = Histogram(DURATION_BOUNDS)
        """Waits for a connection, by pool."""
        self.batch_sizes = Histogram(SIZE_BOUNDS)
        """Requests in a batched statement, by kind."""
        link, name = (config.replica_url, REPLICA_SETTING) if replica else (config.database_url, PRIMARY_SETTING)
        if link is None:
            raise StartupError(f"{name} is not set.")
        wanted = "prefer-standby" if replica else "read-write"
        self.url = apply_tls_settings(normalise_dsn(link.get_secret_value(), name, wanted), config, name)
        self.dependants: list[DatabaseManager] = []
        self.servers = HostSelector(self.url)
        self.resilience.breaker.on_suspicion = self._invalidate_connections
        self.resilience.ask_server = self._ask_server
        self.resilience.on_lost = self._discard_connections
        self._has_sessions = config.pool_mode is PoolMode.SESSION
        self._generation = 0
        self._invalidated_at = -MIN_INVALIDATION_INTERVAL_SECONDS
        self._pool_timeout = config.pool_timeout
        self._max_connections = config.pool_size + config.max_overflow
        self.engine = self._build_engine(config, get_connect_options(config, replica))
        self.session_factory = async_sessionmaker(self.engine, expire_on_commit=False)
        self.direct_pool = DirectPool(
            partial(self.servers.connect, **get_connect_options(shorten_lock_timeout(config), replica)),
            size=min(config.pool_size, DIRECT_CONNECTIONS),
            recycle_seconds=config.pool_recycle,
            has_sessions=self._has_sessions,
            on_wait=lambda seconds: self.waits.observe(seconds, "hot"),
        )

    def _build_engine(self, config: DatabaseConfig, options: dict[str, Any]) -> AsyncEngine:
        if config.pool_mode is PoolMode.TRANSACTION:
            options = options | {"prepared_statement_cache_size": 0}
        engine = create_async_engine(
            "postgresql+asyncpg://",
            pool_size=config.pool_size,
            max_overflow=config.max_overflow,
            pool_timeout=config.pool_timeout,
            pool_recycle=config.pool_recycle,
            echo=config.echo_sql,
            hide_parameters=True,
            connect_args={"async_creator_fn": self.servers.connect, **options},
        )
        event.listen(engine.sync_engine, "connect", self._stamp_generation)
        event.listen(engine.sync_engine, "checkout", self._reject_stale)
        trace_statements(engine.sync_engine)
        return engine

    def _stamp_generation(self, _: Any, record: Any) -> None:
        record.info["generation"] = self._generation

    def _reject_stale(self, connection: Any, record: Any, _: object) -> None:
        """Raise `DisconnectionError`, so that the pool replaces a connection that was closed or invalidated."""
        driver = connection.driver_connection
        if driver.is_closed() or record.info["generation"] != self._generation:
            driver.terminate()
            raise DisconnectionError

    def _invalidate_connections(self, error: StorageUnavailableError) -> None:
        """Invalidate all connections when another server may have become the primary."""
        if isinstance(error, ReadOnlyError) or self.servers.has_several_hosts:
            self._discard_connections()

    def _discard_connections(self) -> None:
        now = time.monotonic()
        if now - self._invalidated_at >= MIN_INVALIDATION_INTERVAL_SECONDS:
            self._invalidated_at = now
            self._generation += 1
            self.direct_pool.invalidate()
            self.servers.forget()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session with a transaction that commits on a clean exit of the block and rolls back otherwise.

        Raises the driver's errors, `BusyError` when no connection was free in time, and `ConnectionLostError` at a
        request's deadline.
        """
        async with self.session_factory() as session:
            connection = await self._connect_session(session)
            driver: Any = (await connection.get_raw_connection()).driver_connection
            pid = driver.get_server_pid() if self._has_sessions else None
            with self.resilience.limit_unit(driver.terminate, pid):
                yield session
                await session.commit()

    async def run(self, body: Callable[[AsyncSession], Awaitable[Result]], repeatable: bool = False) -> Result:
        """Run `body` in a transaction, and again where the policy of retries allows it. Raises domain errors."""

        async def run_once() -> Result:
            async with self.session() as session:
                return await body(session)

        return await self.resilience.run(run_once, repeatable)

    async def _connect_session(self, session: AsyncSession) -> AsyncConnection:
        """Raise `BusyError` when all connections stay in use, `ConnectTimeoutError` when no new one can be opened."""
        began = time.monotonic()
        try:
            with self.resilience.limit_wait() as seconds:
                async with asyncio.timeout(min(seconds, self._pool_timeout)):
                    return await session.connection()
        except (TimeoutError, PoolTimeoutError) as error:
            is_full = self.pool_status()["checked_out"] >= self._max_connections
            raise (BusyError if is_full else ConnectTimeoutError) from error
        finally:
            self.waits.observe(time.monotonic() - began, "units")

    async def fetch_value(self, query: str) -> Any:
        """Return the value of a query that is repeatable. Raises `StorageUnavailableError`."""
        return await self.resilience.run(lambda: self.fetch_value_once(query), repeatable=True)

    async def fetch_value_once(self, query: str, *parameters: Any) -> Any:
        """Return the value of a query without retries. Raises the driver's errors."""
        async with asyncio.timeout(self.resilience.limits.work_seconds), self.direct_pool.acquire() as pooled:
            return await pooled.driver.fetchval(query, *parameters)

    async def _ask_server(self) -> frozenset[int] | None:
        """Return the ids of the server processes at work for this role, None behind a pooler, which hides them.

        Uses a connection of its own. Raises the driver's errors.
        """
        connection = await self.servers.connect()
        try:
            if not self._has_sessions:
                await connection.execute("SELECT 1")
                return None
            return frozenset(row["pid"] for row in await connection.fetch(PROCESSES_AT_WORK_QUERY))
        finally:
            connection.terminate()

    async def ping(self) -> None:
        """Make one round trip. Raises `StorageUnavailableError`."""
        await self.fetch_value("SELECT 1")

    def pool_status(self) -> dict[str, Any]:
        """Return the pool's size and its connections: checked out, idle, and beyond the size."""
        pool: Any = self.engine.pool
        return {
            "size": pool.size(),
            "checked_out": pool.checkedout(),
            "idle": pool.checkedin(),
            "overflow": max(pool.overflow(), 0),
        }

    def count_max_connections(self) -> dict[tuple[str, ...], float]:
        """Return the maximum number of connections by pool."""
        return {("units",): float(self._max_connections), ("hot",): float(self.direct_pool.size)}

    async def close(self) -> None:
        """Close all connections, including those of dependants."""
        for dependant in self.dependants:
            await dependant.close()
        await self.direct_pool.close()
        await self.engine.dispose()


class BaseRepository:
    """Base class of repositories. The unit of work that opened the session commits it."""

    def __init__(self, session: AsyncSession, clock: Clock | None = None) -> None:
        """Use the database's clock by default."""
        self.session = session
        self.clock = clock or SystemClock()

    async def commit(self) -> None:
        """Commit the transaction."""
        await self.session.commit()

    async def rollback(self) -> None:
        """Roll back the transaction."""
        await self.session.rollback()

    def now(self) -> ColumnElement[Any]:
        """Return the deciding instant as an SQL expression."""
        instant = self.clock.instant()
        return func.now() if instant is None else cast(literal(instant), Timestamp)


class PostgresUnitOfWork(Generic[Repositories]):
    """Implements `UnitOfWork` by READ COMMITTED transactions that are retried where this is safe."""

    def __init__(self, manager: DatabaseManager, repositories: Callable[[AsyncSession], Repositories]) -> None:
        self._manager = manager
        self._repositories = repositories

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        with self._manager.resilience.breaker.guard(), translate_errors():
            async with self._manager.session() as session:
                yield self._repositories(session)

    async def run(
        self,
        body: TransactionBody[Repositories, Result],
        happened: TransactionBody[Repositories, Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        try:
            return await self._run(body, repeatable)
        except ConnectionLostError:
            if happened is None:
                raise
        found = await self._run(happened, repeatable=True)
        return await self._run(body) if found is None else found

    async def _run(self, body: TransactionBody[Repositories, Result], repeatable: bool = False) -> Result:
        return await self._manager.run(lambda session: body(self._repositories(session)), repeatable)
