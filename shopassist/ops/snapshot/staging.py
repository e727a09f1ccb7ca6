"""Temporary tables that the rows of a snapshot are copied into."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass

import asyncpg
from sqlalchemy import URL

from shopassist.db import statements
from shopassist.db.migrate import connect
from shopassist.errors import StateError
from shopassist.ops.snapshot.file import SESSION_SETTINGS, ReportProgress, Snapshot
from shopassist.ops.snapshot.tables import SPECS_BY_NAME, TABLE_SPECS, TableSpec
from shopassist.ops.snapshot.validate_file import HashUserId, validate_staged
from shopassist.ops.snapshot.validate_rows import RAW_COLUMN, Record, RejectedRow, list_copied_columns, validate_rows

TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
CREATE_RESULT_TABLES = """
CREATE TEMPORARY TABLE rejected (line bigint NOT NULL, kind text, owner text, reason text NOT NULL);
CREATE TEMPORARY TABLE erased (user_id text PRIMARY KEY)
"""
REJECTED_COLUMNS = ["line", "kind", "owner", "reason"]
CREATE_STAGING_TABLE = "CREATE TEMPORARY TABLE %I (line bigint NOT NULL, LIKE public.%I)"
DROP_COLUMN = "ALTER TABLE %I DROP COLUMN %I"
DROP_NOT_NULL = "ALTER TABLE %I ALTER COLUMN %I DROP NOT NULL"
ADD_RAW_COLUMN = "ALTER TABLE %I ADD COLUMN %I jsonb"
ADD_JSON_COLUMN = "ALTER TABLE %I ADD COLUMN %I jsonb GENERATED ALWAYS AS (%I -> %L) STORED"
OTHER_KEY_MESSAGE = (
    "{} was made under another SECRET_KEY: users who were erased could not be recognised. Set the SECRET_KEY that the "
    "servers had then."
)
NOT_OWNER_MESSAGE = "This needs the owner of the tables: set DATABASE_MIGRATION_URL to the owner's link."


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """Callbacks for the progress of a command."""

    start_step: Callable[[str], ReportProgress]
    """Start a step whose progress is reported."""
    report: Callable[[str], object]
    """Start a step without progress."""


@asynccontextmanager
async def open_session(dsn: URL, lock_key: int) -> AsyncIterator[asyncpg.Connection]:
    """Connect and hold an advisory lock. Raises `StateError` if another process holds it."""
    async with connect(dsn) as connection:
        await connection.execute(SESSION_SETTINGS)
        if not await connection.fetchval(TRY_LOCK, lock_key):
            raise StateError("Another process is at it on this database: wait until it has ended.")
        try:
            yield connection
        except asyncpg.InsufficientPrivilegeError:
            raise StateError(NOT_OWNER_MESSAGE) from None


async def stage_snapshot(
    connection: asyncpg.Connection, snapshot: Snapshot, hash_user_id: HashUserId, key: str, progress: SnapshotProgress
) -> None:
    """Copy the rows of a file into temporary tables, without those that an import rejects.

    `key` is the fingerprint of the server's secret key. Raises `StateError` if the file has another one.
    """
    if snapshot.header.key not in {None, key}:
        raise StateError(OTHER_KEY_MESSAGE.format(snapshot.path))
    await connection.execute(CREATE_RESULT_TABLES)
    for spec in TABLE_SPECS:
        await _create_staging_table(connection, spec)
    report, done = progress.start_step("checking and copying rows"), snapshot.start
    for first_line, chunk in snapshot.read_chunks():
        rows = validate_rows(chunk, first_line, accept_hashed=snapshot.header.key is not None)
        for name, records in rows.records.items():
            rows.rejected += await _copy_records(connection, SPECS_BY_NAME[name], records)
        await connection.copy_records_to_table(
            "rejected", columns=REJECTED_COLUMNS, records=[astuple(row) for row in rows.rejected]
        )
        done += len(chunk)
        report(done, snapshot.stop)
    await validate_staged(connection, snapshot.lines, hash_user_id, progress.report)


async def _create_staging_table(connection: asyncpg.Connection, spec: TableSpec) -> None:
    staged = spec.staging_table
    await statements.execute_quoted(connection, CREATE_STAGING_TABLE, staged, spec.name)
    if RAW_COLUMN in list_copied_columns(spec):
        await statements.execute_quoted(connection, ADD_RAW_COLUMN, staged, RAW_COLUMN)
    for column in spec.table.columns:
        if column.name not in spec.file_columns:
            await statements.execute_quoted(connection, DROP_COLUMN, staged, column.name)
        elif spec.is_json(column.name):
            await statements.execute_quoted(connection, DROP_COLUMN, staged, column.name)
            await statements.execute_quoted(connection, ADD_JSON_COLUMN, staged, column.name, RAW_COLUMN, column.name)
        elif spec.defaults.get(column.name, "") is None:  # computed from all rows in `validate_staged`
            await statements.execute_quoted(connection, DROP_NOT_NULL, staged, column.name)


async def _copy_records(
    connection: asyncpg.Connection, spec: TableSpec, records: Sequence[Record]
) -> list[RejectedRow]:
    """Copy records and return those that PostgreSQL rejects, which are found by bisection."""
    columns = list_copied_columns(spec)
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(spec.staging_table, columns=columns, records=records)
    except (asyncpg.DataError, asyncpg.NotNullViolationError) as error:
        if len(records) == 1:
            owner = records[0][columns.index(spec.owner)] if spec.owner else None
            return [RejectedRow(records[0][0], spec.name, owner, str(error).partition("\n")[0])]
        half = len(records) // 2
        return [
            *await _copy_records(connection, spec, records[:half]),
            *await _copy_records(connection, spec, records[half:]),
        ]
    return []
