"""Taking people over into tables that others are in: a range at a time, with every constraint live."""

import asyncio

import asyncpg

from shopassist.db.postgres import ddl
from shopassist.errors import StateError
from shopassist.models.snapshot import WHOLE
from shopassist.ops.state.checks import MEMORY, Hash, leave_erased_out
from shopassist.ops.state.file import Shown
from shopassist.ops.state.load import BUSY, add
from shopassist.ops.state.staging import passed, staged

PEOPLE_A_RANGE = 500
"""A range takes some 0.1 s, in which nobody else's changes are committed."""

TRIES = 20
PAUSE_SECONDS = 0.5

# Less than the time after which PostgreSQL looks for a deadlock: of two that wait for each other it is us who gives up.
PATIENCE = "SET LOCAL lock_timeout = '800ms'"
LOCK = """
LOCK TABLE public.erasures, public.user_credits, public.user_consents, public.consent_events
IN SHARE ROW EXCLUSIVE MODE
"""
PEOPLE = """
INSERT INTO people (number, user_id, moved)
SELECT row_number() OVER (ORDER BY user_id), user_id, false FROM (
    SELECT user_id FROM staged_user_credits UNION SELECT user_id FROM staged_user_consents
    UNION SELECT user_id FROM staged_consent_events
) AS everybody
"""
INDEX = "CREATE INDEX ON %I (user_id)"
COUNT = "SELECT count(*) FROM people"
DONE = "SELECT first FROM ranges"
CLAIM = "INSERT INTO ranges (first) VALUES ($1)"
NEWEST_ERASURE = "SELECT max(requested_at) FROM public.erasures"

# Whoever is there already, in whatever table, is left alone.
NEW = """
CREATE TEMPORARY TABLE moving ON COMMIT DROP AS
SELECT p.user_id FROM people p WHERE p.number BETWEEN $1 AND $2
AND NOT EXISTS (SELECT FROM public.user_credits t WHERE t.user_id = p.user_id)
AND NOT EXISTS (SELECT FROM public.user_consents t WHERE t.user_id = p.user_id)
AND NOT EXISTS (SELECT FROM public.consent_events t WHERE t.user_id = p.user_id)
"""
MOVED = "UPDATE people p SET moved = true FROM moving m WHERE m.user_id = p.user_id"
ONLY_MOVING = "JOIN moving m ON m.user_id = s.user_id"

DIFFERING = """
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
REPORT_DIFFERING = """
INSERT INTO rejected (line, kind, owner, reason)
SELECT min(line), (array_agg(kind ORDER BY line))[1], user_id, 'the person is there already, and differs' FROM (
    SELECT line, 'user_credits' AS kind, user_id FROM staged_user_credits
    UNION ALL SELECT line, 'user_consents', user_id FROM staged_user_consents
    UNION ALL SELECT line, 'consent_events', user_id FROM staged_consent_events
) AS lines JOIN differing USING (user_id) GROUP BY user_id
"""


async def begin(connection: asyncpg.Connection) -> None:
    """Number the people and make what finds their rows; in one transaction."""
    async with connection.transaction():
        await connection.execute(MEMORY)
        await connection.execute(PEOPLE)
        await connection.execute("CREATE INDEX ON people (user_id)")
        await connection.execute("ANALYZE people")
        for kind in WHOLE:
            await ddl.run(connection, INDEX, staged(kind))
            await ddl.run(connection, "ANALYZE %I", staged(kind))
        await passed(connection, "moving")


async def into_filled(connection: asyncpg.Connection, subject: Hash, shown: Shown) -> None:
    """Take over whoever is not there yet, each range in a transaction of its own; who is and differs is reported."""
    total = await connection.fetchval(COUNT)
    done = {row["first"] for row in await connection.fetch(DONE)}
    seen = None
    for first in range(1, total + 1, PEOPLE_A_RANGE):
        if first not in done:
            seen = await _range(connection, first, subject, seen)
        shown(min(first + PEOPLE_A_RANGE - 1, total), total)
    async with connection.transaction():
        await connection.execute(MEMORY)
        await connection.execute(CREATE_DIFFERING)
        for kind in WHOLE:
            columns = [", ".join(f'{alias}."{name}"' for name in kind.columns) for alias in "st"]
            await ddl.run(connection, DIFFERING, columns[0], staged(kind), columns[1], kind.name)
        await connection.execute(REPORT_DIFFERING)
        await passed(connection, "loaded")


async def _range(connection: asyncpg.Connection, first: int, subject: Hash, seen: object) -> object:
    """Take a range over; up to which erasure those were left out who were erased."""
    for _ in range(TRIES):
        newest = await connection.fetchval(NEWEST_ERASURE)
        if newest != seen:
            async with connection.transaction():
                await leave_erased_out(connection, subject)
            seen = newest
        try:
            async with connection.transaction():
                await connection.execute(PATIENCE)
                await connection.execute(LOCK)
                if await connection.fetchval(NEWEST_ERASURE) == seen:
                    await connection.execute(NEW, first, first + PEOPLE_A_RANGE - 1)
                    for kind in WHOLE:
                        await add(connection, kind, ONLY_MOVING)
                    await connection.execute(MOVED)
                    await connection.execute(CLAIM, first)
                    return seen
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(PAUSE_SECONDS)
    raise StateError(BUSY)
