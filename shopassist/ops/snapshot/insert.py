"""Inserts staged rows into the tables: in bulk into empty ones, in ranges of users into filled ones."""

import asyncio
from collections.abc import Sequence

import asyncpg

from shopassist.db import statements
from shopassist.errors import StateError
from shopassist.ops.snapshot.file import ShowProgress
from shopassist.ops.snapshot.staging import get_staging_table, set_phase
from shopassist.ops.snapshot.tables import OTHER_SPECS, TABLE_SPECS, USER_SPECS, TableSpec
from shopassist.ops.snapshot.validate_file import SET_MEMORY, HashUserId, ReportStep, reject_erased

LOCK_NUMBERED_TABLES = """
LOCK TABLE public.consent_notices, public.credit_transactions, public.consent_events, public.admin_audit,
    public.products IN SHARE ROW EXCLUSIVE MODE
"""
LOCK_EMPTY_TABLES = """
LOCK TABLE public.erasures, public.user_credits, public.credit_holds, public.credit_transactions,
    public.user_consents, public.consent_events IN ACCESS EXCLUSIVE MODE
"""
SET_BULK_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '10s'"
BUSY_MESSAGE = "The tables are in use: stop the servers, then import again, which goes on from here."
RESERVE_IDS = """
INSERT INTO bases (kind, base)
SELECT $1, setval(s.name, nextval(s.name) + 2 * $2) - 2 * $2
FROM (SELECT pg_get_serial_sequence('public.' || quote_ident($1), 'id')) AS s(name)
"""
IS_EMPTY_QUERY = "SELECT NOT EXISTS (SELECT FROM public.%I)"
REJECT_DIFFERENT = """
INSERT INTO rejected (line, kind, reason)
SELECT s.line, %L, 'is there already, and differs' FROM %I s JOIN public.%I t ON (%s) = (%s)
WHERE ROW(%s) IS DISTINCT FROM ROW(%s)
"""
INSERT_ROWS = "INSERT INTO public.%I (%s) SELECT %s FROM %I s %s ON CONFLICT DO NOTHING"
INSERT_NUMBERED_ROWS = """
INSERT INTO public.%I (id, %s) OVERRIDING SYSTEM VALUE
SELECT b.base + s.line, %s FROM %I s JOIN bases b ON b.kind = %L %s ON CONFLICT DO NOTHING
"""
ONLY_NEW_ROWS = """
WHERE hash_record_extended(ROW(%s), 0) NOT IN (SELECT hash_record_extended(ROW(%s), 0) FROM public.%I t)
"""
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
CONSTRAINTS_QUERY = """
SELECT conrelid::regclass::text AS owner, conname AS name, pg_get_constraintdef(oid) AS definition,
       contype::text AS type
FROM pg_constraint WHERE conrelid = to_regclass('public.' || quote_ident($1)) AND contype IN ('p', 'u', 'f', 'x')
"""
INDEXES_QUERY = """
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i WHERE i.indrelid = to_regclass('public.' || quote_ident($1))
AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = i.indrelid)
"""
INSERT_OUTCOME = "INSERT INTO outcomes (kind, imported) VALUES ($1, $2)"


async def insert_other_tables(connection: asyncpg.Connection, lines: int) -> None:
    """Reserve numbers for so many lines, and take over what is nobody's or stands for itself; in one transaction."""
    try:
        async with connection.transaction():
            await connection.execute(SET_BULK_LOCK_TIMEOUT)
            await connection.execute(LOCK_NUMBERED_TABLES)
            for kind in TABLE_SPECS:
                if kind.has_identity:
                    await connection.execute(RESERVE_IDS, kind.name, lines)
            for kind in OTHER_SPECS:
                await _insert_other_table(connection, kind)
            await connection.execute(MAP_NOTICES)
            await set_phase(connection, "prepared")
    except asyncpg.LockNotAvailableError:
        raise StateError(BUSY_MESSAGE) from None


async def insert_into_empty(connection: asyncpg.Connection, subject: HashUserId, said: ReportStep) -> bool:
    """Take people over if nobody is there yet: without indexes and keys, which are made behind it; whether it was so.

    One transaction: whenever it ends early the tables are as they were, empty and with all their indexes.
    """
    try:
        async with connection.transaction():
            await connection.execute(SET_BULK_LOCK_TIMEOUT)
            await connection.execute(LOCK_EMPTY_TABLES)
            await connection.execute(SET_MEMORY)
            for kind in USER_SPECS:
                if not await statements.fetch_quoted_value(connection, IS_EMPTY_QUERY, kind.name):
                    return False
            await reject_erased(connection, subject)
            constraints = [row for kind in USER_SPECS for row in await connection.fetch(CONSTRAINTS_QUERY, kind.name)]
            indexes = [row for kind in USER_SPECS for row in await connection.fetch(INDEXES_QUERY, kind.name)]
            await _drop_constraints(connection, constraints, indexes)
            for kind in USER_SPECS:
                said(f"rows of {kind.name}")
                await insert_rows(connection, kind)
            for row in indexes:
                said(f"index {row['name']}")
                await statements.execute_quoted(connection, "%s", row["definition"])
            for row in sorted(constraints, key=lambda row: row["type"] == "f"):
                said(f"constraint {row['name']}")
                await statements.execute_quoted(
                    connection, "ALTER TABLE %s ADD CONSTRAINT %I %s", row["owner"], row["name"], row["definition"]
                )
            await set_phase(connection, "loaded")
    except asyncpg.LockNotAvailableError:
        raise StateError(BUSY_MESSAGE) from None
    return True


async def _drop_constraints(
    connection: asyncpg.Connection, constraints: Sequence[asyncpg.Record], indexes: Sequence[asyncpg.Record]
) -> None:
    for row in constraints:
        await statements.execute_quoted(connection, "ALTER TABLE %s DROP CONSTRAINT %I", row["owner"], row["name"])
    for row in indexes:
        await statements.execute_quoted(connection, "DROP INDEX %s", row["name"])


async def insert_rows(connection: asyncpg.Connection, kind: TableSpec, only: str = "") -> None:
    """Take rows of a kind over, those that the join `only` leaves."""
    names, values = format_columns(kind), format_columns(kind, "s")
    if kind.has_identity:
        count = await statements.execute_quoted(
            connection, INSERT_NUMBERED_ROWS, kind.name, names, values, get_staging_table(kind), kind.name, only
        )
    else:
        count = await statements.execute_quoted(
            connection, INSERT_ROWS, kind.name, names, values, get_staging_table(kind), only
        )
    await connection.execute(INSERT_OUTCOME, kind.name, count)


async def _insert_other_table(connection: asyncpg.Connection, kind: TableSpec) -> None:
    if kind.unique:
        here, there = format_keys(kind, "s"), format_keys(kind, "t")
        mine, theirs = format_columns(kind, "s"), format_columns(kind, "t")
        await statements.execute_quoted(
            connection, REJECT_DIFFERENT, kind.name, get_staging_table(kind), kind.name, here, there, mine, theirs
        )
    if kind.names_id:
        status = await connection.execute(INSERT_NOTICES)
        await connection.execute(ADVANCE_NOTICE_SEQUENCE)
        await connection.execute(INSERT_OUTCOME, kind.name, int(status.rpartition(" ")[2]))
        return
    not_yet = await connection.fetchval(
        statements.FORMAT_QUERY, ONLY_NEW_ROWS, [format_columns(kind, "s"), format_columns(kind, "t"), kind.name]
    )
    await insert_rows(connection, kind, "" if kind.unique else not_yet)


def format_columns(kind: TableSpec, alias: str | None = None) -> str:
    """The columns of a kind, as a list for a statement."""
    return _format_names(kind.columns, alias)


def format_keys(kind: TableSpec, alias: str | None = None) -> str:
    """The columns that make a row of a kind the same wherever it is kept."""
    return _format_names(kind.identified_by, alias)


def _format_names(names: Sequence[str], alias: str | None) -> str:
    return ", ".join(f'{alias}."{name}"' if alias else f'"{name}"' for name in names)


USERS_PER_RANGE = 500
"""A range takes some 0.1 s, in which nobody else's changes are committed."""

RANGE_ATTEMPTS = 20
RANGE_PAUSE_SECONDS = 0.5

# Less than the time after which PostgreSQL looks for a deadlock: of two that wait for each other it is us who gives up.
SET_RANGE_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '800ms'"
LOCK_USER_TABLES = """
LOCK TABLE public.erasures, public.user_credits, public.user_consents, public.consent_events
IN SHARE ROW EXCLUSIVE MODE
"""
INSERT_USERS = """
INSERT INTO people (number, user_id, moved)
SELECT row_number() OVER (ORDER BY user_id), user_id, false FROM (
    SELECT user_id FROM staged_user_credits UNION SELECT user_id FROM staged_user_consents
    UNION SELECT user_id FROM staged_consent_events
) AS everybody
"""
CREATE_USER_INDEX = "CREATE INDEX ON %I (user_id)"
COUNT_USERS = "SELECT count(*) FROM people"
SELECT_RANGES = "SELECT first FROM ranges"
INSERT_RANGE = "INSERT INTO ranges (first) VALUES ($1)"
NEWEST_ERASURE_QUERY = "SELECT max(requested_at) FROM public.erasures"

# Whoever is there already, in whatever table, is left alone.
CREATE_MOVING = """
CREATE TEMPORARY TABLE moving ON COMMIT DROP AS
SELECT p.user_id FROM people p WHERE p.number BETWEEN $1 AND $2
AND NOT EXISTS (SELECT FROM public.user_credits t WHERE t.user_id = p.user_id)
AND NOT EXISTS (SELECT FROM public.user_consents t WHERE t.user_id = p.user_id)
AND NOT EXISTS (SELECT FROM public.consent_events t WHERE t.user_id = p.user_id)
"""
MARK_MOVED = "UPDATE people p SET moved = true FROM moving m WHERE m.user_id = p.user_id"
ONLY_MOVING = "JOIN moving m ON m.user_id = s.user_id"

INSERT_DIFFERING = """
INSERT INTO differing (user_id)
SELECT COALESCE(f.user_id, d.user_id) FROM (
    SELECT s.user_id, count(*) AS rows, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM %I s JOIN people p ON p.user_id = s.user_id AND NOT p.moved GROUP BY s.user_id
) AS f FULL JOIN (
    SELECT t.user_id, count(*) AS rows, sum(hash_record_extended(ROW(%s), 0)) AS hash
    FROM public.%I t JOIN people p ON p.user_id = t.user_id AND NOT p.moved GROUP BY t.user_id
) AS d USING (user_id)
WHERE (f.rows, f.hash) IS DISTINCT FROM (d.rows, d.hash)
ON CONFLICT DO NOTHING
"""
CREATE_DIFFERING = "CREATE TEMPORARY TABLE differing (user_id text PRIMARY KEY) ON COMMIT DROP"
REJECT_DIFFERING = """
INSERT INTO rejected (line, kind, owner, reason)
SELECT min(line), (array_agg(kind ORDER BY line))[1], user_id, 'the person is there already, and differs' FROM (
    SELECT line, 'user_credits' AS kind, user_id FROM staged_user_credits
    UNION ALL SELECT line, 'user_consents', user_id FROM staged_user_consents
    UNION ALL SELECT line, 'consent_events', user_id FROM staged_consent_events
) AS lines JOIN differing USING (user_id) GROUP BY user_id
"""


async def number_users(connection: asyncpg.Connection) -> None:
    """Number the people and make what finds their rows; in one transaction."""
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        await connection.execute(INSERT_USERS)
        await connection.execute("CREATE INDEX ON people (user_id)")
        await connection.execute("ANALYZE people")
        for kind in USER_SPECS:
            await statements.execute_quoted(connection, CREATE_USER_INDEX, get_staging_table(kind))
            await statements.execute_quoted(connection, "ANALYZE %I", get_staging_table(kind))
        await set_phase(connection, "moving")


async def merge_into_filled(connection: asyncpg.Connection, subject: HashUserId, shown: ShowProgress) -> None:
    """Take over whoever is not there yet, each range in a transaction of its own; who is and differs is reported."""
    total = await connection.fetchval(COUNT_USERS)
    done = {row["first"] for row in await connection.fetch(SELECT_RANGES)}
    seen = None
    for first in range(1, total + 1, USERS_PER_RANGE):
        if first not in done:
            seen = await _merge_range(connection, first, subject, seen)
        shown(min(first + USERS_PER_RANGE - 1, total), total)
    async with connection.transaction():
        await connection.execute(SET_MEMORY)
        await connection.execute(CREATE_DIFFERING)
        for kind in USER_SPECS:
            columns = [", ".join(f'{alias}."{name}"' for name in kind.columns) for alias in "st"]
            await statements.execute_quoted(
                connection, INSERT_DIFFERING, columns[0], get_staging_table(kind), columns[1], kind.name
            )
        await connection.execute(REJECT_DIFFERING)
        await set_phase(connection, "loaded")


async def _merge_range(connection: asyncpg.Connection, first: int, subject: HashUserId, seen: object) -> object:
    """Take a range over; up to which erasure those were left out who were erased."""
    for _ in range(RANGE_ATTEMPTS):
        newest = await connection.fetchval(NEWEST_ERASURE_QUERY)
        if newest != seen:
            async with connection.transaction():
                await reject_erased(connection, subject)
            seen = newest
        try:
            async with connection.transaction():
                await connection.execute(SET_RANGE_LOCK_TIMEOUT)
                await connection.execute(LOCK_USER_TABLES)
                if await connection.fetchval(NEWEST_ERASURE_QUERY) == seen:
                    await connection.execute(CREATE_MOVING, first, first + USERS_PER_RANGE - 1)
                    for kind in USER_SPECS:
                        await insert_rows(connection, kind, ONLY_MOVING)
                    await connection.execute(MARK_MOVED)
                    await connection.execute(INSERT_RANGE, first)
                    return seen
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(RANGE_PAUSE_SECONDS)
    raise StateError(BUSY_MESSAGE)
