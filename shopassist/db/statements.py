"""Statements sent by asyncpg: single-statement transactions, and statements with quoted identifiers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from shopassist.db.database import DatabaseManager
from shopassist.db.failures import BROKEN_CONNECTION_ERROR, detect_lost_connection
from shopassist.tracing import statement_span


async def fetch(
    manager: DatabaseManager, statement: TextClause, *, repeatable: bool = False, **parameters: Any
) -> Sequence[Any]:
    """The rows, whose columns are found by name, of a hot statement. Raises domain errors.

    Raises `ConnectionLostError` when it is not known whether the statement happened; a `repeatable` one is done again.
    """
    query, names = compile_positional(statement)
    arguments = [parameters[name] for name in names]

    async def once() -> Sequence[Any]:
        return await _fetch_once(manager, query, arguments, manager.resilience.limits.hot_seconds)

    return await manager.resilience.run(once, repeatable)


async def fetch_without_deadline(manager: DatabaseManager, statement: TextClause, **parameters: Any) -> Sequence[Any]:
    """`fetch` for what may take longer and may be done twice; the server's statement timeout bounds it."""
    query, names = compile_positional(statement)
    arguments = [parameters[name] for name in names]

    async def once() -> Sequence[Any]:
        return await _fetch_once(manager, query, arguments, None)

    return await manager.resilience.run(once, repeatable=True)


async def _fetch_once(
    manager: DatabaseManager, query: str, arguments: Sequence[Any], seconds: float | None
) -> Sequence[Any]:
    """Raises `TimeoutError` when no connection was to be had in time, `ConnectionLostError` once it was sent."""
    is_sent, backend = False, None
    try:
        async with asyncio.timeout(seconds), manager.hot.taken() as kept:
            is_sent, backend = True, kept.backend
            with statement_span(query), detect_lost_connection(backend):
                return await _fetch_rows(kept.driver, query, arguments)
    except TimeoutError:
        if not is_sent:
            raise
        with detect_lost_connection(backend):
            raise


async def _fetch_rows(connection: Any, query: str, arguments: Sequence[Any]) -> Sequence[Any]:
    try:
        rows: Sequence[Any] = await connection.fetch(query, *arguments)
    except BROKEN_CONNECTION_ERROR:
        connection.terminate()
        raise
    return rows


@cache
def compile_positional(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """A statement as asyncpg takes it, with the names of its parameters in their order."""
    compiled = statement.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())


FORMAT_QUERY = "SELECT format($1, VARIADIC $2::text[])"


async def execute_quoted(connection: asyncpg.Connection, statement: str, *names: str) -> int:
    """Execute a statement with names that PostgreSQL itself quotes (%I, %L) or that it gave us quoted (%s).

    The number of rows that it changed.
    """
    status = str(await connection.execute(await connection.fetchval(FORMAT_QUERY, statement, names)))
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


async def fetch_quoted_value(connection: asyncpg.Connection, statement: str, *names: str) -> Any:
    """The first value that such a statement gives."""
    return await connection.fetchval(await connection.fetchval(FORMAT_QUERY, statement, names))


async def fetch_quoted_rows(connection: asyncpg.Connection, statement: str, *names: str) -> list[asyncpg.Record]:
    """The rows that such a statement gives."""
    found: list[asyncpg.Record] = await connection.fetch(await connection.fetchval(FORMAT_QUERY, statement, names))
    return found


async def copy_json_lines(
    connection: asyncpg.Connection, statement: str, output: Callable[[bytes], Awaitable[None]], *names: str
) -> None:
    """Give `output` the single column of JSON that such a statement gives, a line each.

    JSON has no control character in it, so with two of them for quote and delimiter the text comes as it is.
    """
    query = await connection.fetchval(FORMAT_QUERY, statement, names)
    await connection.copy_from_query(query, output=output, format="csv", quote="\x01", delimiter="\x02")
