"""Who runs a command, and what they did, for the audit of administrators."""

import getpass

import asyncpg

EXISTS = "SELECT to_regclass('public.admin_audit') IS NOT NULL"
RECORD = "INSERT INTO admin_audit (actor, act, target) VALUES ($1, $2, $3)"


def operator() -> str:
    """Who runs the command, by the name that the machine knows them by."""
    try:
        return f"operator:{getpass.getuser()}"
    except OSError:
        return "operator"


async def recorded(connection: asyncpg.Connection, act: str, target: str) -> None:
    """Record an act on the database itself, where its schema is one that has an audit. Raises what asyncpg raises."""
    if await connection.fetchval(EXISTS):
        await connection.execute(RECORD, operator(), act, target)
