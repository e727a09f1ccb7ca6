"""Staging tables that a snapshot is copied into, and the worker processes that copy it."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL, make_url
from sqlalchemy.dialects.postgresql import JSONB

from shopassist.db import statements
from shopassist.db.embedded.process import die_with_parent
from shopassist.db.host_selection import HostSelector
from shopassist.db.migrate import connect
from shopassist.errors import StateError
from shopassist.ops.snapshot.file import SESSION_SETTINGS, Chunk, ShowProgress, Snapshot, read_chunk
from shopassist.ops.snapshot.tables import TABLE_SPECS, TableSpec
from shopassist.ops.snapshot.validate_rows import (
    RAW_COLUMN,
    RejectedRow,
    ValidatedRows,
    list_copied_columns,
    validate_rows,
)

IMPORT_SCHEMA, VERIFY_SCHEMA = "state_import", "state_verify"
"""The schemas. One import at a time, one verification at a time."""

LOCK_KEYS = {IMPORT_SCHEMA: 0x5B0FA552, VERIFY_SCHEMA: 0x5B0FA553}
TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
SCHEMA_EXISTS = "SELECT to_regnamespace($1) IS NOT NULL"
CREATE_BOOKKEEPING = """
CREATE UNLOGGED TABLE begun (sha256 text NOT NULL, phase text NOT NULL, path text NOT NULL);
CREATE UNLOGGED TABLE chunks (number integer PRIMARY KEY);
CREATE UNLOGGED TABLE rejected (line bigint NOT NULL, kind text, owner text, reason text NOT NULL);
CREATE UNLOGGED TABLE erased (user_id text PRIMARY KEY);
CREATE UNLOGGED TABLE bases (kind text PRIMARY KEY, base bigint NOT NULL);
CREATE UNLOGGED TABLE people (number integer PRIMARY KEY, user_id text NOT NULL, moved boolean NOT NULL);
CREATE UNLOGGED TABLE ranges (first integer PRIMARY KEY);
CREATE UNLOGGED TABLE outcomes (kind text NOT NULL, imported bigint NOT NULL)
"""
INSERT_IMPORT = "INSERT INTO begun (sha256, phase, path) VALUES ($1, 'staging', $2)"
SELECT_IMPORT = "SELECT sha256, phase, path FROM begun"
UPDATE_PHASE = "UPDATE begun SET phase = $1"
INSERT_CHUNK = "INSERT INTO chunks (number) VALUES ($1)"
SELECT_CHUNKS = "SELECT number FROM chunks"
DROP_SCHEMA = "DROP SCHEMA IF EXISTS %I CASCADE"
SET_SEARCH_PATH = "SET search_path = %I, public"
NOT_OWNER_MESSAGE = "This needs the owner of the tables: set DATABASE_MIGRATION_URL to the owner's link."
REJECT_COLUMNS = ["line", "kind", "owner", "reason"]


@dataclass(frozen=True, slots=True)
class StagingTarget:
    """Where a snapshot is staged: the database, the schema, and the file that it is copied from."""

    link: str
    schema: str
    path: Path
    subject_key: bool


def get_staging_table(kind: TableSpec) -> str:
    """The name of the table that rows of a kind are copied into."""
    return f"staged_{kind.name}"


@asynccontextmanager
async def open_session(url: URL, schema: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that finds the staging tables and, for the length of the block, has them to itself.

    Raises `StateError` when somebody else has.
    """
    async with connect(url) as connection:
        await connection.execute(SESSION_SETTINGS)
        if not await connection.fetchval(TRY_LOCK, LOCK_KEYS[schema]):
            raise StateError("Another process is at it on this database: wait until it has ended.")
        await statements.execute_quoted(connection, SET_SEARCH_PATH, schema)
        yield connection


async def get_phase(connection: asyncpg.Connection, schema: str, snapshot: Snapshot) -> str | None:
    """How far an import of the file was when it ended early; None where there is nothing to go on with.

    Raises `StateError` when it was one of another file.
    """
    if not await connection.fetchval(SCHEMA_EXISTS, schema):
        return None
    begun = await connection.fetchrow(SELECT_IMPORT)
    if begun is None:  # the server crashed, and what is not logged is empty
        return None
    if begun["sha256"] != snapshot.end.sha256:
        raise StateError(
            f"The import of another file, {begun['path']}, has not ended: import that one again to finish it, or give "
            "--discard to forget what of it is not imported yet."
        )
    return str(begun["phase"])


async def create_tables(connection: asyncpg.Connection, schema: str, snapshot: Snapshot) -> None:
    """Make the tables anew, empty. Raises `StateError` where the role may not."""
    try:
        async with connection.transaction():
            await statements.execute_quoted(connection, DROP_SCHEMA, schema)
            await statements.execute_quoted(connection, "CREATE SCHEMA %I", schema)
            await connection.execute(CREATE_BOOKKEEPING)
            for kind in TABLE_SPECS:
                await _create_table(connection, kind)
            await connection.execute(INSERT_IMPORT, snapshot.end.sha256, str(snapshot.path))
    except asyncpg.InsufficientPrivilegeError:
        raise StateError(NOT_OWNER_MESSAGE) from None


async def drop_tables(connection: asyncpg.Connection, schema: str) -> None:
    """Let nothing be left of them."""
    await statements.execute_quoted(connection, DROP_SCHEMA, schema)


async def set_phase(connection: asyncpg.Connection, phase: str) -> None:
    """Note how far it is, in the transaction that brought it there."""
    await connection.execute(UPDATE_PHASE, phase)


async def list_missing_chunks(connection: asyncpg.Connection, snapshot: Snapshot) -> list[Chunk]:
    """The chunks that are not staged yet."""
    there = {row["number"] for row in await connection.fetch(SELECT_CHUNKS)}
    return [chunk for chunk in snapshot.chunks if chunk.number not in there]


async def _create_table(connection: asyncpg.Connection, kind: TableSpec) -> None:
    name = get_staging_table(kind)
    await statements.execute_quoted(
        connection, "CREATE UNLOGGED TABLE %I (line bigint NOT NULL, LIKE public.%I)", name, kind.name
    )
    for column in kind.table.columns:
        if column.computed is not None or (column.identity is not None and not kind.names_id):
            await statements.execute_quoted(connection, "ALTER TABLE %I DROP COLUMN %I", name, column.name)
        elif isinstance(column.type, JSONB):
            await statements.execute_quoted(connection, "ALTER TABLE %I DROP COLUMN %I", name, column.name)
            await statements.execute_quoted(connection, "ALTER TABLE %I ADD COLUMN %I jsonb", name, RAW_COLUMN)
            add = "ALTER TABLE %I ADD COLUMN %I jsonb GENERATED ALWAYS AS (%I -> %L) STORED"
            await statements.execute_quoted(connection, add, name, column.name, RAW_COLUMN, column.name)
        elif column.name in kind.defaults and kind.defaults[column.name] is None:
            await statements.execute_quoted(
                connection, "ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL", name, column.name
            )


async def stage_chunk(connection: asyncpg.Connection, place: StagingTarget, chunk: Chunk) -> int:
    """Check the rows of a chunk and copy them; how many lines. A chunk that is there already stays as it is."""
    found = validate_rows(read_chunk(chunk, place.path), chunk.first_line, place.subject_key)
    lines = len(found.rejects) + sum(len(records) for records in found.records.values())
    try:
        async with connection.transaction():
            await connection.execute(INSERT_CHUNK, chunk.number)
            await _copy_rows(connection, found)
    except asyncpg.UniqueViolationError:
        pass  # by a worker that outlived its import for a moment
    return lines


async def _copy_rows(connection: asyncpg.Connection, found: ValidatedRows) -> None:
    for name, records in found.records.items():
        kind = next(kind for kind in TABLE_SPECS if kind.name == name)
        found.rejects += await _copy_records(connection, kind, records)
    if found.rejects:
        rejects = [(one.line, one.kind, one.owner, one.reason) for one in found.rejects]
        await connection.copy_records_to_table("rejected", columns=REJECT_COLUMNS, records=rejects)


async def _copy_records(
    connection: asyncpg.Connection, kind: TableSpec, records: Sequence[tuple[Any, ...]]
) -> list[RejectedRow]:
    """Copy records; those that the database does not take, which are looked for by halves."""
    if not records:
        return []
    columns = list_copied_columns(kind)
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(get_staging_table(kind), columns=columns, records=records)
    except (asyncpg.DataError, asyncpg.NotNullViolationError) as error:
        if len(records) == 1:
            owner = records[0][columns.index(kind.owner)] if kind.owner else None
            return [RejectedRow(records[0][0], kind.name, owner, str(error).partition("\n")[0])]
        half = len(records) // 2
        return [
            *await _copy_records(connection, kind, records[:half]),
            *await _copy_records(connection, kind, records[half:]),
        ]
    return []


MAX_CHUNKS_WITHOUT_WORKERS = 4
"""So many chunks are done before another process would have started."""

MAX_WORKERS = 4
ASYNCHRONOUS_COMMIT = "SET synchronous_commit = off"
"""What is not logged has nothing to wait for."""


async def stage_chunks(place: StagingTarget, chunks: Sequence[Chunk], size: int, shown: ShowProgress) -> None:
    """Stage chunks of a file of so many bytes. Raises what asyncpg raises, and `OSError`."""
    left = sum(chunk.size for chunk in chunks)
    if len(chunks) <= MAX_CHUNKS_WITHOUT_WORKERS:
        connection = await _connect(place)
        try:
            for chunk in chunks:
                await stage_chunk(connection, place, chunk)
                left -= chunk.size
                shown(size - left, size)
        finally:
            await connection.close()
        return
    await asyncio.to_thread(_stage_in_processes, place, chunks, size, shown)


def _stage_in_processes(place: StagingTarget, chunks: Sequence[Chunk], size: int, shown: ShowProgress) -> None:
    left = sum(chunk.size for chunk in chunks)
    workers = max(1, min(MAX_WORKERS, os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (place, os.getpid())) as pool:
        futures = {pool.submit(_stage_in_worker, chunk): chunk for chunk in chunks}
        try:
            for future in as_completed(futures):
                future.result()
                left -= futures[future].size
                shown(size - left, size)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Worker:
    """What a worker process keeps."""

    place: StagingTarget
    loop: asyncio.AbstractEventLoop
    connection: asyncpg.Connection


def _start_worker(place: StagingTarget, parent: int) -> None:
    die_with_parent()
    if os.getppid() != parent:  # it was killed while this process started
        os._exit(1)
    _Worker.place = place
    _Worker.loop = asyncio.new_event_loop()
    _Worker.connection = _Worker.loop.run_until_complete(_connect(place))


def _stage_in_worker(chunk: Chunk) -> int:
    return _Worker.loop.run_until_complete(stage_chunk(_Worker.connection, _Worker.place, chunk))


async def _connect(place: StagingTarget) -> asyncpg.Connection:
    connection = await HostSelector(make_url(place.link)).connect(timeout=10)
    await connection.execute(SESSION_SETTINGS)
    await connection.execute(ASYNCHRONOUS_COMMIT)
    await statements.execute_quoted(connection, SET_SEARCH_PATH, place.schema)
    return connection
