"""Statements that name things, which SQL cannot bind: PostgreSQL's own `format()` quotes the names."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

FORMAT = "SELECT format($1, VARIADIC $2::text[])"


async def run(connection: asyncpg.Connection, statement: str, *names: str) -> int:
    """Execute a statement with names that PostgreSQL itself quotes (%I, %L) or that it gave us quoted (%s).

    The number of rows that it changed.
    """
    status = str(await connection.execute(await connection.fetchval(FORMAT, statement, names)))
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


async def value(connection: asyncpg.Connection, statement: str, *names: str) -> Any:
    """The first value that such a statement gives."""
    return await connection.fetchval(await connection.fetchval(FORMAT, statement, names))


async def rows(connection: asyncpg.Connection, statement: str, *names: str) -> list[asyncpg.Record]:
    """The rows that such a statement gives."""
    found: list[asyncpg.Record] = await connection.fetch(await connection.fetchval(FORMAT, statement, names))
    return found


async def copy_out(
    connection: asyncpg.Connection, statement: str, output: Callable[[bytes], Awaitable[None]], *names: str
) -> None:
    """Give `output` the single column of JSON that such a statement gives, a line each.

    JSON has no control character in it, so with two of them for quote and delimiter the text comes as it is.
    """
    query = await connection.fetchval(FORMAT, statement, names)
    await connection.copy_from_query(query, output=output, format="csv", quote="\x01", delimiter="\x02")
