"""Comparing a snapshot with the database: counts, sums and checksums of both sides."""

from dataclasses import dataclass

import asyncpg
from sqlalchemy import URL

from shopassist.db.migrate import require_current
from shopassist.db.postgres import ddl
from shopassist.models.snapshot import KINDS, WHOLE, Kind
from shopassist.ops.state import staging
from shopassist.ops.state.checks import MEMORY, Hash
from shopassist.ops.state.file import Snapshot
from shopassist.ops.state.importing import Progress, fill
from shopassist.ops.state.load import MAP_NOTICES, columns_of, keys_of
from shopassist.ops.state.staging import staged

FEW = 5
"""So many keys that differ are named."""

OWNERS = """
CREATE TEMPORARY TABLE owners ON COMMIT DROP AS
SELECT user_id FROM staged_user_credits UNION SELECT user_id FROM staged_user_consents
UNION SELECT user_id FROM staged_consent_events
"""
SUMMED = """
SELECT count(*) AS rows, sum(%s)::bigint AS credits, COALESCE(sum(hash_record_extended(ROW(%s), 0)), 0) AS checksum
FROM %s WHERE %s
"""
OF_OWNERS = "user_id IN (SELECT user_id FROM owners)"
OF_KEYS = "hash_record_extended(ROW(%s), 0) IN (SELECT hash_record_extended(ROW(%s), 0) FROM %I)"
DIFFERING = """
SELECT key FROM (
    SELECT CAST(ROW(%s) AS text) AS key, count(*) AS rows, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM %I GROUP BY 1
) AS f FULL JOIN (
    SELECT CAST(ROW(%s) AS text) AS key, count(*) AS rows, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM public.%I WHERE %s GROUP BY 1
) AS d USING (key)
WHERE (f.rows, f.hash) IS DISTINCT FROM (d.rows, d.hash) ORDER BY key LIMIT %s
"""
REFUSED = "SELECT count(*) FROM rejected WHERE line <= $1 AND reason <> 'the person was erased'"
LEFT_OUT = "SELECT count(*) FROM rejected WHERE line <= $1 AND reason = 'the person was erased'"


@dataclass(frozen=True, slots=True)
class Side:
    """What one side holds of a kind. `credits` is None for what has none."""

    rows: int
    credits: int | None
    checksum: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A kind on both sides: in the file, and of the same people or keys in the database."""

    kind: str
    file: Side
    database: Side
    differing: tuple[str, ...]
    """Some of the keys that differ, as PostgreSQL writes a row."""

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return self.file == self.database


@dataclass(frozen=True, slots=True)
class Comparison:
    """All kinds, how many rows an import refuses, and how many are of people who were erased here."""

    kinds: tuple[Compared, ...]
    refused: int
    erased: int

    @property
    def agrees(self) -> bool:
        """Whether all of the file is in the database as it stands in the file."""
        return not self.refused and all(kind.agrees for kind in self.kinds)


async def compared(url: URL, snapshot: Snapshot, subject: Hash, key: str, progress: Progress) -> Comparison:
    """Compare a snapshot with the database of `url`, whose state is not changed.

    Raises `StateError`, `MigrationError` and `StartupError`.
    """
    await require_current(url)
    async with staging.session(url, staging.VERIFY) as connection:
        await staging.create(connection, staging.VERIFY, snapshot)
        try:
            await fill(connection, url, staging.VERIFY, snapshot, subject, key, progress)
            async with connection.transaction():
                return await _compared(connection, snapshot, progress)
        finally:
            if not connection.is_closed():
                await staging.drop(connection, staging.VERIFY)


async def _compared(connection: asyncpg.Connection, snapshot: Snapshot, progress: Progress) -> Comparison:
    await connection.execute(MEMORY)
    await connection.execute(MAP_NOTICES)
    await connection.execute(OWNERS)
    await connection.execute("ANALYZE owners")
    kinds = []
    for kind in KINDS:
        progress.said(f"comparing {kind.name}")
        kinds.append(await _kind(connection, kind))
    refused = await connection.fetchval(REFUSED, snapshot.lines)
    return Comparison(tuple(kinds), refused, await connection.fetchval(LEFT_OUT, snapshot.lines))


async def _kind(connection: asyncpg.Connection, kind: Kind) -> Compared:
    columns, summed = columns_of(kind), kind.credits or "NULL::bigint"
    where = OF_OWNERS if kind in WHOLE else await _of_keys(connection, kind)
    [file] = await ddl.rows(connection, SUMMED, summed, columns, f'"{staged(kind)}"', "true")
    [there] = await ddl.rows(connection, SUMMED, summed, columns, f'public."{kind.name}"', where)
    sides = Side(**file), Side(**there)
    differing: tuple[str, ...] = ()
    if sides[0] != sides[1]:
        key = '"user_id"' if kind in WHOLE else keys_of(kind)
        names = key, columns, staged(kind), key, columns, kind.name, where, str(FEW)
        differing = tuple(row["key"] for row in await ddl.rows(connection, DIFFERING, *names))
    return Compared(kind.name, *sides, differing)


async def _of_keys(connection: asyncpg.Connection, kind: Kind) -> str:
    names = keys_of(kind), keys_of(kind), staged(kind)
    return str(await connection.fetchval(ddl.FORMAT, OF_KEYS, names))
