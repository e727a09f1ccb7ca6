"""Compares a snapshot with a database: counts, sums and checksums per table."""

from dataclasses import dataclass

import asyncpg
from sqlalchemy import URL

from shopassist.db.migrate import require_current
from shopassist.db.statements import quote
from shopassist.identity.key_derivation import UserHasher
from shopassist.ops.snapshot.file import ReportProgress, Snapshot
from shopassist.ops.snapshot.importing import MAP_NOTICES, format_differing_keys_query
from shopassist.ops.snapshot.staging import SET_MEMORY, open_session, stage_snapshot
from shopassist.ops.snapshot.tables import TABLE_SPECS, TableSpec

VERIFY_LOCK_KEY = 0x5B0FA553
MAX_DIFFERING_KEYS = 5

CREATE_OWNERS = """
CREATE TEMPORARY TABLE owners ON COMMIT DROP AS
SELECT user_id FROM staged_user_credits UNION SELECT user_id FROM staged_user_consents
UNION SELECT user_id FROM staged_consent_events
"""
TOTALS_QUERY = """
SELECT count(*) AS rows, sum(%s)::bigint AS credits, COALESCE(sum(hash_record_extended(ROW(%s), 0)), 0) AS checksum
FROM %s WHERE %s
"""
OWNERS_CONDITION = "user_id IN (SELECT user_id FROM owners)"
KEYS_CONDITION = "hash_record_extended(ROW(%s), 0) IN (SELECT hash_record_extended(ROW(%s), 0) FROM %s)"
LIMIT_KEYS = "%s ORDER BY key LIMIT %s"
COUNT_REJECTED = """
SELECT count(*) FILTER (WHERE reason <> 'the person was erased') AS refused,
       count(*) FILTER (WHERE reason = 'the person was erased') AS erased
FROM rejected WHERE line <= $1
"""


@dataclass(frozen=True, slots=True)
class TableTotals:
    """Totals of a table in the file or the database. `credits` is None for tables without credits."""

    rows: int
    credits: int | None
    checksum: int


@dataclass(frozen=True, slots=True)
class TableComparison:
    """Totals of a table in the file, and those of the same users or keys in the database."""

    kind: str
    file: TableTotals
    database: TableTotals
    differing: tuple[str, ...]
    """Some of the keys that differ, in PostgreSQL's notation for rows."""

    @property
    def is_equal(self) -> bool:
        return self.file == self.database


@dataclass(frozen=True, slots=True)
class SnapshotComparison:
    """All tables, the number of rows that an import refuses, and of rows of users who were erased here."""

    tables: tuple[TableComparison, ...]
    refused: int
    erased: int

    @property
    def is_equal(self) -> bool:
        return not self.refused and all(table.is_equal for table in self.tables)


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
            await connection.execute(CREATE_OWNERS)
            await connection.execute("ANALYZE owners")
            tables = []
            for spec in TABLE_SPECS:
                report(f"comparing {spec.name}")
                tables.append(await _compare_table(connection, spec))
            rejected = await connection.fetchrow(COUNT_REJECTED, snapshot.lines)
            return SnapshotComparison(tuple(tables), **rejected)


async def _compare_table(connection: asyncpg.Connection, spec: TableSpec) -> TableComparison:
    key, condition = spec.format_key(), OWNERS_CONDITION
    if spec.is_per_user:
        key = '"user_id"'
    else:
        condition = KEYS_CONDITION % (key, key, spec.staging_table)
    file, database = [
        await _fetch_totals(connection, spec, table, where)
        for table, where in ((f'"{spec.staging_table}"', "true"), (f'public."{spec.name}"', condition))
    ]
    differing: tuple[str, ...] = ()
    if file != database:
        query = format_differing_keys_query(spec, f"CAST(ROW({key}) AS text)", "true", condition)
        rows = await connection.fetch(await quote(connection, LIMIT_KEYS, query, str(MAX_DIFFERING_KEYS)))
        differing = tuple(row["key"] for row in rows)
    return TableComparison(spec.name, file, database, differing)


async def _fetch_totals(connection: asyncpg.Connection, spec: TableSpec, table: str, condition: str) -> TableTotals:
    credits_sql = spec.credits_sql or "NULL::bigint"
    query = await quote(connection, TOTALS_QUERY, credits_sql, spec.format_columns(), table, condition)
    return TableTotals(**await connection.fetchrow(query))
