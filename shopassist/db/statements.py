"""Statements sent by asyncpg: single-statement transactions, and statements with quoted identifiers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from shopassist.db.connections import PooledConnection
from shopassist.db.database import DatabaseManager
from shopassist.db.failures import (
    BROKEN_CONNECTION_ERROR,
    BusyError,
    ConnectionLostError,
    ConnectTimeoutError,
    detect_lost_connection,
)
from shopassist.tracing import statement_span


async def fetch(
    manager: DatabaseManager, statement: TextClause, *, repeatable: bool = False, **parameters: Any
) -> Sequence[Any]:
    """Return the rows of a frequent statement as its own transaction. Raises domain errors.

    Raises `ConnectionLostError` when the outcome is unknown; a `repeatable` statement is retried instead.
    """
    return await _fetch(manager, _fetch_watched, statement, repeatable, parameters)


async def fetch_without_deadline(manager: DatabaseManager, statement: TextClause, **parameters: Any) -> Sequence[Any]:
    """Do the same for a repeatable statement that may take longer; only the server's time-out limits it."""
    return await _fetch(manager, _fetch_once, statement, True, parameters)


async def _fetch(
    manager: DatabaseManager,
    fetch_once: Callable[[DatabaseManager, str, Sequence[Any]], Awaitable[Sequence[Any]]],
    statement: TextClause,
    repeatable: bool,
    parameters: Mapping[str, Any],
) -> Sequence[Any]:
    query, names = compile_positional(statement)
    arguments = [parameters[name] for name in names]
    return await manager.resilience.run(lambda: fetch_once(manager, query, arguments), repeatable)


async def _fetch_watched(manager: DatabaseManager, query: str, arguments: Sequence[Any]) -> Sequence[Any]:
    """Raise `BusyError` or `ConnectTimeoutError` when there is no connection in time, and nothing was sent."""
    limit = asyncio.timeout(None)
    pooled: PooledConnection | None = None
    try:
        with manager.resilience.watch(lambda: limit.reschedule(0)) as watch:
            async with limit, manager.direct_pool.acquire() as pooled:
                watch.pid = pooled.pid
                return await _fetch_rows(pooled, query, arguments)
    except ConnectionLostError as error:
        if pooled is None:
            raise (BusyError if manager.direct_pool.is_full else ConnectTimeoutError) from error
        error.backend = pooled.server_process
        raise


async def _fetch_once(manager: DatabaseManager, query: str, arguments: Sequence[Any]) -> Sequence[Any]:
    async with manager.direct_pool.acquire() as pooled:
        return await _fetch_rows(pooled, query, arguments)


async def _fetch_rows(pooled: PooledConnection, query: str, arguments: Sequence[Any]) -> Sequence[Any]:
    with statement_span(query), detect_lost_connection(pooled.server_process):
        try:
            rows: Sequence[Any] = await pooled.driver.fetch(query, *arguments)
        except BROKEN_CONNECTION_ERROR:
            pooled.driver.terminate()
            raise
        return rows


@cache
def compile_positional(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """Return a statement with asyncpg's positional parameters, and their names in order."""
    compiled = statement.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())


async def quote(connection: asyncpg.Connection, statement: str, *names: str) -> str:
    """Return a statement with names in it. PostgreSQL quotes those for %I and %L; names for %s must be quoted."""
    return str(await connection.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, names))


async def execute_quoted(connection: asyncpg.Connection, statement: str, *names: str) -> int:
    """Execute a statement with names in it, and return the number of changed rows."""
    status = str(await connection.execute(await quote(connection, statement, *names)))
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


async def copy_json_lines(
    connection: asyncpg.Connection, statement: str, output: Callable[[bytes], Awaitable[None]], *names: str
) -> None:
    """Write the single JSON column of such a statement to `output`, one line per row.

    JSON contains no control characters, so with two of them as quote and delimiter COPY leaves the text unchanged.
    """
    query = await quote(connection, statement, *names)
    await connection.copy_from_query(query, output=output, format="csv", quote="\x01", delimiter="\x02")
