"""The hot statements: sent by asyncpg itself, each a transaction and one round trip."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect

from shopassist.db.manager import DatabaseManager
from shopassist.db.resilience import sent, translated


async def fetch(manager: DatabaseManager, statement: TextClause, **parameters: Any) -> Sequence[Any]:
    """The rows, whose columns are found by name. Raises domain errors.

    Raises `ConnectionLostError` when it is not known whether the statement happened.
    """
    query, names = positional(statement)
    with translated():
        async with manager.driver_connection() as connection:
            with sent():
                rows: Sequence[Any] = await connection.fetch(query, *[parameters[name] for name in names])
                return rows


@cache
def positional(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """A statement as asyncpg takes it, with the names of its parameters in their order."""
    compiled = statement.compile(dialect=asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
    return str(compiled), tuple(compiled.positiontup or ())
