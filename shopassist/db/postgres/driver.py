"""Statements that are sent by asyncpg itself, each a transaction (READ COMMITTED) and one round trip."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from shopassist.db.manager import DatabaseManager
from shopassist.db.resilience.failures import BROKEN, sent
from shopassist.telemetry.traces import statement_span


async def fetch(
    manager: DatabaseManager, statement: TextClause, *, repeatable: bool = False, **parameters: Any
) -> Sequence[Any]:
    """The rows, whose columns are found by name, of a hot statement. Raises domain errors.

    Raises `ConnectionLostError` when it is not known whether the statement happened; a `repeatable` one is done again.
    """
    query, names = positional(statement)
    arguments = [parameters[name] for name in names]

    async def once() -> Sequence[Any]:
        return await _fetch(manager, query, arguments, manager.resilience.limits.hot_seconds)

    return await manager.resilience.run(once, repeatable)


async def fetch_patiently(manager: DatabaseManager, statement: TextClause, **parameters: Any) -> Sequence[Any]:
    """`fetch` for what may take longer and may be done twice; the server's statement timeout bounds it."""
    query, names = positional(statement)
    arguments = [parameters[name] for name in names]

    async def once() -> Sequence[Any]:
        return await _fetch(manager, query, arguments, None)

    return await manager.resilience.run(once, repeatable=True)


async def _fetch(
    manager: DatabaseManager, query: str, arguments: Sequence[Any], seconds: float | None
) -> Sequence[Any]:
    """Raises `TimeoutError` when no connection was to be had in time, `ConnectionLostError` once it was sent."""
    is_sent, backend = False, None
    try:
        async with asyncio.timeout(seconds), manager.hot.taken() as kept:
            is_sent, backend = True, kept.backend
            with statement_span(query), sent(backend):
                return await _rows(kept.driver, query, arguments)
    except TimeoutError:
        if not is_sent:
            raise
        with sent(backend):
            raise


async def _rows(connection: Any, query: str, arguments: Sequence[Any]) -> Sequence[Any]:
    try:
        rows: Sequence[Any] = await connection.fetch(query, *arguments)
    except BROKEN:
        connection.terminate()
        raise
    return rows


@cache
def positional(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """A statement as asyncpg takes it, with the names of its parameters in their order."""
    compiled = statement.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())
