"""Tables of their own that a snapshot is copied into, checked in, and taken over from.

They stand in a schema that is dropped at the end. Nothing of them is logged: after a crash of the server they are
all empty, the record of what was copied too, and the copying begins anew.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL
from sqlalchemy.dialects.postgresql import JSONB

from shopassist.db.migrate import connected
from shopassist.db.postgres import ddl
from shopassist.errors import StateError
from shopassist.models.snapshot import KINDS, Kind
from shopassist.ops.state.export import PATIENT
from shopassist.ops.state.file import Chunk, Snapshot, read
from shopassist.ops.state.rows import RAW, Checked, Reject, checked, copied

IMPORT, VERIFY = "state_import", "state_verify"
"""The schemas. One import at a time, one verification at a time."""

LOCKS = {IMPORT: 0x5B0FA552, VERIFY: 0x5B0FA553}
TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
EXISTS = "SELECT to_regnamespace($1) IS NOT NULL"
BOOKKEEPING = """
CREATE UNLOGGED TABLE begun (sha256 text NOT NULL, phase text NOT NULL, path text NOT NULL);
CREATE UNLOGGED TABLE chunks (number integer PRIMARY KEY);
CREATE UNLOGGED TABLE rejected (line bigint NOT NULL, kind text, owner text, reason text NOT NULL);
CREATE UNLOGGED TABLE erased (user_id text PRIMARY KEY);
CREATE UNLOGGED TABLE bases (kind text PRIMARY KEY, base bigint NOT NULL);
CREATE UNLOGGED TABLE people (number integer PRIMARY KEY, user_id text NOT NULL, moved boolean NOT NULL);
CREATE UNLOGGED TABLE ranges (first integer PRIMARY KEY);
CREATE UNLOGGED TABLE outcomes (kind text NOT NULL, imported bigint NOT NULL)
"""
BEGIN = "INSERT INTO begun (sha256, phase, path) VALUES ($1, 'staging', $2)"
BEGUN = "SELECT sha256, phase, path FROM begun"
PASS = "UPDATE begun SET phase = $1"  # noqa: S105 - no password
CLAIM = "INSERT INTO chunks (number) VALUES ($1)"
STAGED = "SELECT number FROM chunks"
DROP = "DROP SCHEMA IF EXISTS %I CASCADE"
SEARCH = "SET search_path = %I, public"
NOT_THE_OWNER = "This needs the owner of the tables: set DATABASE_MIGRATION_URL to the owner's link."
REJECT_COLUMNS = ["line", "kind", "owner", "reason"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a snapshot is staged: the database, the schema, and the file that it is copied from."""

    link: str
    schema: str
    path: Path
    subject_key: bool


def staged(kind: Kind) -> str:
    """The name of the table that rows of a kind are copied into."""
    return f"staged_{kind.name}"


@asynccontextmanager
async def session(url: URL, schema: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that finds the staging tables and, for the length of the block, has them to itself.

    Raises `StateError` when somebody else has.
    """
    async with connected(url) as connection:
        await connection.execute(PATIENT)
        if not await connection.fetchval(TRY_LOCK, LOCKS[schema]):
            raise StateError("Another process is at it on this database: wait until it has ended.")
        await ddl.run(connection, SEARCH, schema)
        yield connection


async def phase_of(connection: asyncpg.Connection, schema: str, snapshot: Snapshot) -> str | None:
    """How far an import of the file was when it ended early; None where there is nothing to go on with.

    Raises `StateError` when it was one of another file.
    """
    if not await connection.fetchval(EXISTS, schema):
        return None
    begun = await connection.fetchrow(BEGUN)
    if begun is None:  # the server crashed, and what is not logged is empty
        return None
    if begun["sha256"] != snapshot.end.sha256:
        raise StateError(
            f"The import of another file, {begun['path']}, has not ended: import that one again to finish it, or give "
            "--discard to forget what of it is not imported yet."
        )
    return str(begun["phase"])


async def create(connection: asyncpg.Connection, schema: str, snapshot: Snapshot) -> None:
    """Make the tables anew, empty. Raises `StateError` where the role may not."""
    try:
        async with connection.transaction():
            await ddl.run(connection, DROP, schema)
            await ddl.run(connection, "CREATE SCHEMA %I", schema)
            await connection.execute(BOOKKEEPING)
            for kind in KINDS:
                await _create(connection, kind)
            await connection.execute(BEGIN, snapshot.end.sha256, str(snapshot.path))
    except asyncpg.InsufficientPrivilegeError:
        raise StateError(NOT_THE_OWNER) from None


async def drop(connection: asyncpg.Connection, schema: str) -> None:
    """Let nothing be left of them."""
    await ddl.run(connection, DROP, schema)


async def passed(connection: asyncpg.Connection, phase: str) -> None:
    """Note how far it is, in the transaction that brought it there."""
    await connection.execute(PASS, phase)


async def missing(connection: asyncpg.Connection, snapshot: Snapshot) -> list[Chunk]:
    """The chunks that are not staged yet."""
    there = {row["number"] for row in await connection.fetch(STAGED)}
    return [chunk for chunk in snapshot.chunks if chunk.number not in there]


async def _create(connection: asyncpg.Connection, kind: Kind) -> None:
    name = staged(kind)
    await ddl.run(connection, "CREATE UNLOGGED TABLE %I (line bigint NOT NULL, LIKE public.%I)", name, kind.name)
    for column in kind.table.columns:
        if column.computed is not None or (column.identity is not None and not kind.names_id):
            await ddl.run(connection, "ALTER TABLE %I DROP COLUMN %I", name, column.name)
        elif isinstance(column.type, JSONB):
            await ddl.run(connection, "ALTER TABLE %I DROP COLUMN %I", name, column.name)
            await ddl.run(connection, "ALTER TABLE %I ADD COLUMN %I jsonb", name, RAW)
            add = "ALTER TABLE %I ADD COLUMN %I jsonb GENERATED ALWAYS AS (%I -> %L) STORED"
            await ddl.run(connection, add, name, column.name, RAW, column.name)
        elif column.name in kind.defaults and kind.defaults[column.name] is None:
            await ddl.run(connection, "ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL", name, column.name)


async def stage(connection: asyncpg.Connection, place: Place, chunk: Chunk) -> int:
    """Check the rows of a chunk and copy them; how many lines. A chunk that is there already stays as it is."""
    found = checked(read(chunk, place.path), chunk.first_line, place.subject_key)
    lines = len(found.rejects) + sum(len(records) for records in found.records.values())
    try:
        async with connection.transaction():
            await connection.execute(CLAIM, chunk.number)
            await _copy(connection, found)
    except asyncpg.UniqueViolationError:
        pass  # by a worker that outlived its import for a moment
    return lines


async def _copy(connection: asyncpg.Connection, found: Checked) -> None:
    for name, records in found.records.items():
        kind = next(kind for kind in KINDS if kind.name == name)
        found.rejects += await _copied(connection, kind, records)
    if found.rejects:
        rejects = [(one.line, one.kind, one.owner, one.reason) for one in found.rejects]
        await connection.copy_records_to_table("rejected", columns=REJECT_COLUMNS, records=rejects)


async def _copied(connection: asyncpg.Connection, kind: Kind, records: Sequence[tuple[Any, ...]]) -> list[Reject]:
    """Copy records; those that the database does not take, which are looked for by halves."""
    if not records:
        return []
    columns = copied(kind)
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(staged(kind), columns=columns, records=records)
    except (asyncpg.DataError, asyncpg.NotNullViolationError) as error:
        if len(records) == 1:
            owner = records[0][columns.index(kind.owner)] if kind.owner else None
            return [Reject(records[0][0], kind.name, owner, str(error).partition("\n")[0])]
        half = len(records) // 2
        return [*await _copied(connection, kind, records[:half]), *await _copied(connection, kind, records[half:])]
    return []
