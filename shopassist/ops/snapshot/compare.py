"""Compares a snapshot with a database: counts, sums and checksums per table."""

from dataclasses import dataclass

import asyncpg
from sqlalchemy import URL

from shopassist.db import statements
from shopassist.db.migrate import require_current
from shopassist.ops.snapshot import staging
from shopassist.ops.snapshot.file import Snapshot
from shopassist.ops.snapshot.importing import SnapshotProgress, stage_snapshot
from shopassist.ops.snapshot.insert import MAP_NOTICES, format_columns, format_keys
from shopassist.ops.snapshot.staging import get_staging_table
from shopassist.ops.snapshot.tables import TABLE_SPECS, USER_SPECS, TableSpec
from shopassist.ops.snapshot.validate_file import SET_MEMORY, HashUserId

MAX_DIFFERING_KEYS = 5
"""So many keys that differ are named."""

CREATE_OWNERS = """
CREATE TEMPORARY TABLE owners ON COMMIT DROP AS
SELECT user_id FROM staged_user_credits UNION SELECT user_id FROM staged_user_consents
UNION SELECT user_id FROM staged_consent_events
"""
TOTALS_QUERY = """
SELECT count(*) AS rows, sum(%s)::bigint AS credits, COALESCE(sum(hash_record_extended(ROW(%s), 0)), 0) AS checksum
FROM %s WHERE %s
"""
OWNERS_FILTER = "user_id IN (SELECT user_id FROM owners)"
KEYS_FILTER = "hash_record_extended(ROW(%s), 0) IN (SELECT hash_record_extended(ROW(%s), 0) FROM %I)"
DIFFERING_QUERY = """
SELECT key FROM (
    SELECT CAST(ROW(%s) AS text) AS key, count(*) AS rows, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM %I GROUP BY 1
) AS f FULL JOIN (
    SELECT CAST(ROW(%s) AS text) AS key, count(*) AS rows, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM public.%I WHERE %s GROUP BY 1
) AS d USING (key)
WHERE (f.rows, f.hash) IS DISTINCT FROM (d.rows, d.hash) ORDER BY key LIMIT %s
"""
COUNT_REFUSED = "SELECT count(*) FROM rejected WHERE line <= $1 AND reason <> 'the person was erased'"
COUNT_ERASED = "SELECT count(*) FROM rejected WHERE line <= $1 AND reason = 'the person was erased'"


@dataclass(frozen=True, slots=True)
class TableTotals:
    """What one side holds of a kind. `credits` is None for what has none."""

    rows: int
    credits: int | None
    checksum: int


@dataclass(frozen=True, slots=True)
class TableComparison:
    """A kind on both sides: in the file, and of the same people or keys in the database."""

    kind: str
    file: TableTotals
    database: TableTotals
    differing: tuple[str, ...]
    """Some of the keys that differ, as PostgreSQL writes a row."""

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return self.file == self.database


@dataclass(frozen=True, slots=True)
class SnapshotComparison:
    """All kinds, how many rows an import refuses, and how many are of people who were erased here."""

    kinds: tuple[TableComparison, ...]
    refused: int
    erased: int

    @property
    def agrees(self) -> bool:
        """Whether all of the file is in the database as it stands in the file."""
        return not self.refused and all(kind.agrees for kind in self.kinds)


async def compare_snapshot(
    url: URL, snapshot: Snapshot, subject: HashUserId, key: str, progress: SnapshotProgress
) -> SnapshotComparison:
    """Compare a snapshot with the database of `url`, whose state is not changed.

    Raises `StateError`, `MigrationError` and `StartupError`.
    """
    await require_current(url)
    async with staging.open_session(url, staging.VERIFY_SCHEMA) as connection:
        await staging.create_tables(connection, staging.VERIFY_SCHEMA, snapshot)
        try:
            await stage_snapshot(connection, url, staging.VERIFY_SCHEMA, snapshot, subject, key, progress)
            async with connection.transaction():
                return await _compare_tables(connection, snapshot, progress)
        finally:
            if not connection.is_closed():
                await staging.drop_tables(connection, staging.VERIFY_SCHEMA)


async def _compare_tables(
    connection: asyncpg.Connection, snapshot: Snapshot, progress: SnapshotProgress
) -> SnapshotComparison:
    await connection.execute(SET_MEMORY)
    await connection.execute(MAP_NOTICES)
    await connection.execute(CREATE_OWNERS)
    await connection.execute("ANALYZE owners")
    kinds = []
    for kind in TABLE_SPECS:
        progress.said(f"comparing {kind.name}")
        kinds.append(await _compare_table(connection, kind))
    refused = await connection.fetchval(COUNT_REFUSED, snapshot.lines)
    return SnapshotComparison(tuple(kinds), refused, await connection.fetchval(COUNT_ERASED, snapshot.lines))


async def _compare_table(connection: asyncpg.Connection, kind: TableSpec) -> TableComparison:
    columns, summed = format_columns(kind), kind.credits or "NULL::bigint"
    where = OWNERS_FILTER if kind in USER_SPECS else await _build_keys_filter(connection, kind)
    [file] = await statements.fetch_quoted_rows(
        connection, TOTALS_QUERY, summed, columns, f'"{get_staging_table(kind)}"', "true"
    )
    [there] = await statements.fetch_quoted_rows(
        connection, TOTALS_QUERY, summed, columns, f'public."{kind.name}"', where
    )
    sides = TableTotals(**file), TableTotals(**there)
    differing: tuple[str, ...] = ()
    if sides[0] != sides[1]:
        key = '"user_id"' if kind in USER_SPECS else format_keys(kind)
        names = key, columns, get_staging_table(kind), key, columns, kind.name, where, str(MAX_DIFFERING_KEYS)
        differing = tuple(row["key"] for row in await statements.fetch_quoted_rows(connection, DIFFERING_QUERY, *names))
    return TableComparison(kind.name, *sides, differing)


async def _build_keys_filter(connection: asyncpg.Connection, kind: TableSpec) -> str:
    names = format_keys(kind), format_keys(kind), get_staging_table(kind)
    return str(await connection.fetchval(statements.FORMAT_QUERY, KEYS_FILTER, names))
