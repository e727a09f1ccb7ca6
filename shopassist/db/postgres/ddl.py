"""Statements that name things, which SQL cannot bind: PostgreSQL's own `format()` quotes the names."""

from typing import Any

import asyncpg

FORMAT = "SELECT format($1, VARIADIC $2::text[])"


async def run(connection: asyncpg.Connection, statement: str, *names: str) -> None:
    """Execute a statement with names that PostgreSQL itself quotes (%I, %L) or that it gave us quoted (%s)."""
    await connection.execute(await connection.fetchval(FORMAT, statement, names))


async def value(connection: asyncpg.Connection, statement: str, *names: str) -> Any:
    """The first value that such a statement gives."""
    return await connection.fetchval(await connection.fetchval(FORMAT, statement, names))
