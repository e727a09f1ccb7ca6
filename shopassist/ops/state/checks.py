"""Checks of what is staged as a whole; what is left of it is what the database is to hold."""

from collections.abc import AsyncIterator, Callable

import asyncpg

from shopassist.db.postgres import ddl
from shopassist.models.snapshot import KINDS, WHOLE, Kind
from shopassist.ops.state import check_statements as sql
from shopassist.ops.state.staging import passed, staged

Hash = Callable[[str], str]
Said = Callable[[str], object]

MEMORY = """
SELECT set_config('work_mem', '128MB', true), set_config('maintenance_work_mem', '512MB', true)
"""
ERASURES = "SELECT subject_hash, max(requested_at) AS erased_at FROM public.erasures GROUP BY subject_hash"
NEEDS_ACCOUNT = ("credit_transactions", "credit_holds")
PAGE = 10_000


async def check(connection: asyncpg.Connection, lines: int, subject: Hash, said: Said) -> None:
    """Refuse rows that do not go together, whole people, and add what older files leave out; in one transaction.

    `lines` are those of the file, `subject` hashes user ids.
    """
    async with connection.transaction():
        await connection.execute(MEMORY)
        for kind in KINDS:
            await ddl.run(connection, "ANALYZE %I", staged(kind))
        said("rules of the tables")
        for kind in KINDS:
            await _rules(connection, kind)
            for columns in kind.unique:
                await _repeats(connection, kind, columns)
        said("references and sums")
        await connection.execute(sql.NOTICE_DIFFERS)
        await connection.execute(sql.NO_NOTICE)
        for name in NEEDS_ACCOUNT:
            await ddl.run(connection, sql.NO_ACCOUNT, f"staged_{name}", name)
        await connection.execute(sql.LEDGERS)
        await connection.execute("ANALYZE ledgers")
        await connection.execute(sql.WRONG_SUM)
        said("people who were erased")
        await leave_erased_out(connection, subject)
        await _refused(connection)
        said("what older files leave out")
        await connection.execute(sql.OPENINGS)
        if await connection.fetchval(sql.UNBALANCED):
            await connection.execute(sql.BALANCES)
        await connection.execute(sql.ALONE)
        await connection.execute(sql.EARLIER_RECORDS, lines)
        await passed(connection, "checked")


async def _rules(connection: asyncpg.Connection, kind: Kind) -> None:
    for check_ in await connection.fetch(sql.CHECKS, kind.name):
        owner = kind.owner or "NULL"
        await ddl.run(connection, sql.BROKEN, staged(kind), check_["rule"], owner, kind.name, check_["name"])


async def _repeats(connection: asyncpg.Connection, kind: Kind, columns: tuple[str, ...]) -> None:
    names, here = ", ".join(columns), ", ".join(f"r.{name}" for name in columns)
    there = ", ".join(f"several.{name}" for name in columns)
    table, owner = staged(kind), kind.owner or columns[0]
    await ddl.run(connection, sql.REPEATED, names, table, names, names, table, here, there, owner, kind.name, names)


async def leave_erased_out(connection: asyncpg.Connection, subject: Hash) -> None:
    """Leave out who was erased here, as far as they were there before that: nobody comes back by a file."""
    erasures = {row["subject_hash"]: row["erased_at"] for row in await connection.fetch(ERASURES)}
    if not erasures:
        return
    async for page in _pages(connection):
        gone = [
            row["user_id"]
            for row in page
            if (erased_at := erasures.get(subject(row["user_id"]))) is not None
            and (row["since"] is None or row["since"] <= erased_at)
        ]
        if gone:
            await connection.execute(sql.ERASED, gone)
    for kind in KINDS:
        if kind.owner is not None:
            await ddl.run(connection, sql.OF_ERASED, staged(kind), kind.owner, kind.name)
    await connection.execute(sql.ADJUSTMENTS_OF_ERASED)
    await connection.execute(sql.DISOWN_ERASED)


async def _pages(connection: asyncpg.Connection) -> AsyncIterator[list[asyncpg.Record]]:
    cursor = await connection.cursor(sql.SINCE)
    while page := await cursor.fetch(PAGE):
        yield page


async def _refused(connection: asyncpg.Connection) -> None:
    """Refuse all of a person of whom a row is refused: nobody is imported in part."""
    await connection.execute(sql.REFUSED, [kind.name for kind in WHOLE])
    if not await connection.fetchval(sql.ANY_REFUSED):
        return
    await connection.execute("ANALYZE refused")
    for kind in WHOLE:
        await ddl.run(connection, sql.OF_REFUSED, staged(kind), kind.name)
