"""Compares a snapshot with a database: counts, sums and checksums per table."""

from dataclasses import dataclass

import asyncpg
from sqlalchemy import URL

from shopassist.db.migrate import require_current
from shopassist.db.statements import quote
from shopassist.identity.key_derivation import UserHasher
from shopassist.ops.snapshot.file import ReportProgress, Snapshot
from shopassist.ops.snapshot.importing import MAP_NOTICES
from shopassist.ops.snapshot.staging import (
    DIFFERS,
    OF_USERS,
    SET_MEMORY,
    format_compared_keys,
    open_session,
    stage_snapshot,
)
from shopassist.ops.snapshot.tables import TABLE_SPECS, TableSpec

VERIFY_LOCK_KEY = 0x5B0FA553
MAX_DIFFERING_KEYS = 5

OF_KEYS = "hash_record_extended(ROW(%s), 0) IN (SELECT hash_record_extended(ROW(%s), 0) FROM %s)"
COMPARE_QUERY = """
SELECT COALESCE(sum(f.rows), 0)::bigint AS file_rows, sum(f.credits)::bigint AS file_credits,
       COALESCE(sum(d.rows), 0)::bigint AS database_rows, sum(d.credits)::bigint AS database_credits,
       COALESCE((array_agg(key ORDER BY key) FILTER (WHERE %s))[1:%s], '{}') AS differing
FROM %s
"""
COUNT_REJECTED = """
SELECT count(*) FILTER (WHERE reason <> 'the person was erased') AS refused,
       count(*) FILTER (WHERE reason = 'the person was erased') AS erased
FROM rejected WHERE line <= $1
"""


@dataclass(frozen=True, slots=True)
class TableComparison:
    """Totals of a table in the file, and those of the same users or keys in the database.

    Credits are None for tables without credits. `differing` are some of the keys whose rows differ, in PostgreSQL's
    notation for rows.
    """

    kind: str
    file_rows: int
    file_credits: int | None
    database_rows: int
    database_credits: int | None
    differing: list[str]


@dataclass(frozen=True, slots=True)
class SnapshotComparison:
    """All tables, the number of rows that an import refuses, and of rows of users who were erased here."""

    tables: list[TableComparison]
    refused: int
    erased: int

    @property
    def is_equal(self) -> bool:
        return not self.refused and not any(table.differing for table in self.tables)


async def compare_snapshot(
    dsn: URL, snapshot: Snapshot, hash_user_id: UserHasher, report: ReportProgress
) -> SnapshotComparison:
    """Compare a snapshot with a database without changing it. Raises `StateError`, `MigrationError`, `StartupError`."""
    await require_current(dsn)
    async with open_session(dsn, VERIFY_LOCK_KEY) as connection:
        await stage_snapshot(connection, snapshot, hash_user_id, report)
        async with connection.transaction():
            await connection.execute(SET_MEMORY)
            await connection.execute(MAP_NOTICES)
            tables = []
            for spec in TABLE_SPECS:
                report(f"comparing {spec.name}")
                tables.append(await _compare_table(connection, spec))
            rejected = await connection.fetchrow(COUNT_REJECTED, snapshot.lines)
            return SnapshotComparison(tables, **rejected)


async def _compare_table(connection: asyncpg.Connection, spec: TableSpec) -> TableComparison:
    key, condition = '"user_id"', OF_USERS
    if not spec.is_per_user:
        key = spec.format_key()
        condition = OF_KEYS % (key, key, spec.staging_table)
    compared = format_compared_keys(spec, f"CAST(ROW({key}) AS text)", "true", condition)
    parts = DIFFERS, str(MAX_DIFFERING_KEYS), compared
    totals = await connection.fetchrow(await quote(connection, COMPARE_QUERY, *parts))
    return TableComparison(spec.name, **totals)
