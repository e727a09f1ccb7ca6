"""Imports a snapshot: users who are not in the database yet, and rows of the other tables.

An import may be killed at any time and given again. Users are imported completely or not at all, and existing rows are
never changed, so the second import adds what the first one did not.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from shopassist.audit.storages import insert_operator_entry
from shopassist.db.migrate import require_current
from shopassist.db.statements import execute_quoted
from shopassist.errors import StateError
from shopassist.identity.key_derivation import UserHasher
from shopassist.ops.files import write_private_file
from shopassist.ops.snapshot.file import ReportProgress, Snapshot
from shopassist.ops.snapshot.staging import (
    DIFFERS,
    OF_USERS,
    SET_MEMORY,
    format_compared_keys,
    open_session,
    reject_erased,
    stage_snapshot,
)
from shopassist.ops.snapshot.tables import OTHER_SPECS, TABLE_SPECS, USER_SPECS, TableSpec

IMPORT_STATE = "import_state"
IMPORT_LOCK_KEY = 0x5B0FA552
BUSY_MESSAGE = "The tables are in use: stop the servers, then import again, which goes on from here."

# What remains of an import that was killed.
CREATE_UNFINISHED = """
CREATE SCHEMA IF NOT EXISTS state_import;
CREATE TABLE IF NOT EXISTS state_import.begun (sha256 text NOT NULL, path text NOT NULL)
"""
SELECT_UNFINISHED = "SELECT sha256, path FROM state_import.begun"
INSERT_UNFINISHED = "INSERT INTO state_import.begun (sha256, path) VALUES ($1, $2)"
DROP_UNFINISHED = "DROP SCHEMA IF EXISTS state_import CASCADE"

CREATE_BASES = "CREATE TEMPORARY TABLE bases (kind text PRIMARY KEY, base bigint NOT NULL)"
LOCK_NUMBERED_TABLES = """
LOCK TABLE public.consent_notices, public.credit_transactions, public.consent_events, public.admin_audit,
    public.products IN SHARE ROW EXCLUSIVE MODE
"""
SET_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
# Ids are given in the order of lines. Added events have line numbers up to twice the number of lines.
RESERVE_IDS = """
INSERT INTO bases (kind, base)
SELECT $1, setval(s.name, nextval(s.name) + 2 * $2) - 2 * $2
FROM (SELECT pg_get_serial_sequence('public.' || quote_ident($1), 'id')) AS s(name)
"""
REJECT_DIFFERENT = """
INSERT INTO rejected (line, kind, reason)
SELECT s.line, %L, 'is there already, and differs' FROM %I s JOIN public.%I t ON (%s) = (%s)
WHERE ROW(%s) IS DISTINCT FROM ROW(%s)
"""
INSERT_ROWS = "INSERT INTO public.%I (%s) SELECT %s FROM %I s %s ON CONFLICT DO NOTHING"
INSERT_NUMBERED_ROWS = """
INSERT INTO public.%1$I (id, %2$s) OVERRIDING SYSTEM VALUE
SELECT s.line + (SELECT base FROM bases WHERE kind = %1$L), %3$s FROM %4$I s %5$s ON CONFLICT DO NOTHING
"""
NEW_ROWS_CONDITION = """
WHERE hash_record_extended(ROW(%s), 0) NOT IN (SELECT hash_record_extended(ROW(%s), 0) FROM public."%s" t)
"""
# A notice keeps its id, unless the id belongs to another notice here.
INSERT_NOTICES = """
INSERT INTO public.consent_notices (id, purpose, version, locale, sha256, "text", published_at, binding_from)
OVERRIDING SYSTEM VALUE
SELECT CASE WHEN EXISTS (SELECT FROM public.consent_notices n WHERE n.id = s.id) THEN b.base + s.line ELSE s.id END,
       s.purpose, s.version, s.locale, s.sha256, s."text", s.published_at, s.binding_from
FROM staged_consent_notices s JOIN bases b ON b.kind = 'consent_notices'
ON CONFLICT (purpose, version, locale) DO NOTHING
"""
ADVANCE_NOTICE_SEQUENCE = """
SELECT setval(s.name, GREATEST(nextval(s.name), COALESCE((SELECT max(id) FROM public.consent_notices), 0)))
FROM (SELECT pg_get_serial_sequence('public.consent_notices', 'id')) AS s(name)
"""
MAP_NOTICES = """
UPDATE staged_consent_events e SET notice_id = n.id
FROM staged_consent_notices s JOIN public.consent_notices n USING (purpose, version, locale)
WHERE s.id = e.notice_id AND n.id <> s.id
"""

USERS_PER_BATCH = 500
"""A batch takes about 0.1 s, and other changes of accounts and consents wait for it."""

BATCH_ATTEMPTS = 20
BATCH_PAUSE_SECONDS = 0.5

# Shorter than PostgreSQL's deadlock_timeout, so that in a deadlock the import gives up, not a server.
SET_BATCH_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '800ms'"
LOCK_USER_TABLES = """
LOCK TABLE public.erasures, public.user_credits, public.user_consents, public.consent_events
IN SHARE ROW EXCLUSIVE MODE
"""
INDEX_USERS = "CREATE INDEX ON users (number)"
INDEX_STAGED_USERS = "CREATE INDEX ON %I (user_id)"
COUNT_USERS = "SELECT count(*) FROM users"
NO_USERS_QUERY = """
SELECT NOT EXISTS (SELECT FROM public.user_credits) AND NOT EXISTS (SELECT FROM public.user_consents)
AND NOT EXISTS (SELECT FROM public.consent_events)
"""
NEWEST_ERASURE_QUERY = "SELECT max(requested_at) FROM public.erasures"
CREATE_BATCH = """
CREATE TEMPORARY TABLE batch ON COMMIT DROP AS
SELECT user_id FROM users u WHERE number BETWEEN $1 AND $2
AND NOT EXISTS (SELECT FROM public.user_credits t WHERE t.user_id = u.user_id)
AND NOT EXISTS (SELECT FROM public.user_consents t WHERE t.user_id = u.user_id)
AND NOT EXISTS (SELECT FROM public.consent_events t WHERE t.user_id = u.user_id)
"""
ONLY_BATCH = "JOIN batch USING (user_id)"
# In the end `users` has those who were in the database before.
DELETE_BATCH = "DELETE FROM users u USING batch b WHERE b.user_id = u.user_id AND u.number BETWEEN $1 AND $2"

CREATE_DIFFERING = "CREATE TEMPORARY TABLE differing (user_id text PRIMARY KEY) ON COMMIT DROP"
INSERT_DIFFERING = "INSERT INTO differing (user_id) SELECT key FROM %s WHERE %s ON CONFLICT DO NOTHING"
REJECT_DIFFERING = """
INSERT INTO rejected (line, kind, owner, reason)
SELECT min(line), (array_agg(kind ORDER BY line))[1], user_id, 'the person is there already, and differs' FROM (
    SELECT line, 'user_credits' AS kind, user_id FROM staged_user_credits
    UNION ALL SELECT line, 'user_consents', user_id FROM staged_user_consents
    UNION ALL SELECT line, 'consent_events', user_id FROM staged_consent_events
) AS lines JOIN differing USING (user_id) GROUP BY user_id
"""
REJECTED_QUERY = "SELECT line, kind, reason FROM rejected WHERE line <= $1 ORDER BY line, reason"
COUNT_DIFFERING = "SELECT count(*) FROM rejected WHERE reason LIKE '%is there already, and differs'"


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """Result of an import."""

    rows: int
    inserted: Mapping[str, int]
    """Rows by table, with those that the file leaves out."""
    rejected: int
    differing: int
    """Rows or users that exist already and differ from the file."""
    is_resumed: bool


async def import_snapshot(
    dsn: URL, snapshot: Snapshot, hash_user_id: UserHasher, rejects: Path, report: ReportProgress, *, discard: bool
) -> SnapshotReport:
    """Import a snapshot and write the rejected rows to the file `rejects`.

    `discard` forgets an unfinished import of another file. Raises `StateError`, `MigrationError` and `StartupError`.
    """
    await require_current(dsn)
    async with open_session(dsn, IMPORT_LOCK_KEY) as connection:
        if discard:
            await connection.execute(DROP_UNFINISHED)
        is_resumed = await _start_import(connection, snapshot)
        await stage_snapshot(connection, snapshot, hash_user_id, report)
        report("notices, products, answers")
        inserted = await _insert_other_tables(connection, snapshot.lines)
        inserted += await _insert_users(connection, hash_user_id, report)
        for spec in TABLE_SPECS:
            await execute_quoted(connection, "ANALYZE public.%I", spec.name)
        rejected = await connection.fetch(REJECTED_QUERY, snapshot.lines)
        if rejected:
            _write_rejects(snapshot, {row["line"]: (row["kind"], row["reason"]) for row in rejected}, rejects)
        differing = await connection.fetchval(COUNT_DIFFERING)
        await connection.execute(DROP_UNFINISHED)
    return SnapshotReport(snapshot.lines - 1, inserted, len(rejected) - differing, differing, is_resumed)


async def _start_import(connection: asyncpg.Connection, snapshot: Snapshot) -> bool:
    """Record that the import is unfinished; return whether it was so before. Raises `StateError` for another file."""
    async with connection.transaction():
        await connection.execute(CREATE_UNFINISHED)
        unfinished = await connection.fetchrow(SELECT_UNFINISHED)
        if unfinished is None:
            await connection.execute(INSERT_UNFINISHED, snapshot.end.sha256, str(snapshot.path))
            await insert_operator_entry(connection, IMPORT_STATE, snapshot.path.name)
        elif unfinished["sha256"] != snapshot.end.sha256:
            raise StateError(
                f"The import of another file, {unfinished['path']}, has not ended: import that one again to finish it, "
                "or give --discard to forget what of it is not imported yet."
            )
        return unfinished is not None


async def _insert_other_tables(connection: asyncpg.Connection, lines: int) -> Counter[str]:
    """Reserve ids for all tables and insert the rows that do not depend on a user, in one transaction."""
    inserted = Counter[str]()
    try:
        async with connection.transaction():
            await connection.execute(CREATE_BASES)
            await connection.execute(SET_LOCK_TIMEOUT)
            await connection.execute(LOCK_NUMBERED_TABLES)
            for spec in TABLE_SPECS:
                if spec.has_identity:
                    await connection.execute(RESERVE_IDS, spec.name, lines)
            for spec in OTHER_SPECS:
                inserted[spec.name] = await _insert_other_table(connection, spec)
            await connection.execute(MAP_NOTICES)
    except asyncpg.LockNotAvailableError:
        raise StateError(BUSY_MESSAGE) from None
    return inserted


async def _insert_other_table(connection: asyncpg.Connection, spec: TableSpec) -> int:
    columns = spec.format_columns("s"), spec.format_columns("t")
    if not spec.unique:
        return await _insert_rows(connection, spec, NEW_ROWS_CONDITION % (*columns, spec.name))
    keys = spec.format_key("s"), spec.format_key("t")
    await execute_quoted(connection, REJECT_DIFFERENT, spec.name, spec.staging_table, spec.name, *keys, *columns)
    if not spec.keeps_id:
        return await _insert_rows(connection, spec)
    inserted = await execute_quoted(connection, INSERT_NOTICES)
    await connection.execute(ADVANCE_NOTICE_SEQUENCE)
    return inserted


async def _insert_rows(connection: asyncpg.Connection, spec: TableSpec, condition: str = "") -> int:
    """Insert staged rows that match a join or condition; return their number."""
    parts = spec.name, spec.format_columns(), spec.format_columns("s"), spec.staging_table, condition
    return await execute_quoted(connection, INSERT_NUMBERED_ROWS if spec.has_identity else INSERT_ROWS, *parts)


async def _insert_users(
    connection: asyncpg.Connection, hash_user_id: UserHasher, report: ReportProgress
) -> Counter[str]:
    """Insert users who are not in the database yet, and reject the others if they differ.

    All users are one batch if there are no users in the database yet. Otherwise batches are small, because servers may
    be running.
    """
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        await connection.execute(INDEX_USERS)
        for spec in USER_SPECS:
            await execute_quoted(connection, INDEX_STAGED_USERS, spec.staging_table)
            await execute_quoted(connection, "ANALYZE %I", spec.staging_table)
    total = await connection.fetchval(COUNT_USERS)
    size = max(1, total) if await connection.fetchval(NO_USERS_QUERY) else USERS_PER_BATCH
    inserted = Counter[str]()
    newest_erasure = None
    for first in range(1, total + 1, size):
        last = min(first + size - 1, total)
        newest_erasure = await _insert_batch(connection, first, last, hash_user_id, newest_erasure, inserted)
        report("people", last, total)
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        await connection.execute(CREATE_DIFFERING)
        for spec in USER_SPECS:
            compared = format_compared_keys(spec, "user_id", OF_USERS, OF_USERS)
            await execute_quoted(connection, INSERT_DIFFERING, compared, DIFFERS)
        await connection.execute(REJECT_DIFFERING)
    return inserted


async def _insert_batch(
    connection: asyncpg.Connection,
    first: int,
    last: int,
    hash_user_id: UserHasher,
    known_erasure: object,
    inserted: Counter[str],
) -> object:
    """Insert the users numbered `first` to `last` in one transaction, without those erased in the meantime.

    `known_erasure` is the time of the newest erasure whose user was already rejected. Return the newest known now.
    """
    for _ in range(BATCH_ATTEMPTS):
        newest = await connection.fetchval(NEWEST_ERASURE_QUERY)
        if newest != known_erasure:
            async with connection.transaction():
                await reject_erased(connection, hash_user_id)
            known_erasure = newest
        try:
            async with connection.transaction():
                await connection.execute(SET_BATCH_LOCK_TIMEOUT)
                await connection.execute(LOCK_USER_TABLES)
                if await connection.fetchval(NEWEST_ERASURE_QUERY) == known_erasure:
                    await connection.execute(CREATE_BATCH, first, last)
                    await connection.execute("ANALYZE batch")
                    counts = {spec.name: await _insert_rows(connection, spec, ONLY_BATCH) for spec in USER_SPECS}
                    await connection.execute(DELETE_BATCH, first, last)
                    inserted.update(counts)
                    return known_erasure
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(BATCH_PAUSE_SECONDS)
    raise StateError(BUSY_MESSAGE)


def _write_rejects(snapshot: Snapshot, rejected: Mapping[int, tuple[str | None, str]], path: Path) -> None:
    """Write each rejected line of the file with its number and the reason. Raises `StateError`."""
    with write_private_file(path, StateError) as file:
        for first_line, chunk in snapshot.read_chunks():
            for line, text in enumerate(chunk.removesuffix(b"\n").split(b"\n"), first_line):
                if line in rejected:
                    kind, reason = rejected[line]
                    row = {"line": line, "kind": kind, "reason": reason, "row": text.decode(errors="replace")}
                    file.write(json.dumps(row).encode() + b"\n")
