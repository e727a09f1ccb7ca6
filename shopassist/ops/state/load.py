"""Taking what is staged over into the tables: at once into empty ones, in ranges of people into others."""

from collections.abc import Sequence

import asyncpg

from shopassist.db.postgres import ddl
from shopassist.errors import StateError
from shopassist.models.snapshot import KINDS, OTHERS, WHOLE, Kind
from shopassist.ops.state.checks import MEMORY, Hash, Said, leave_erased_out
from shopassist.ops.state.staging import passed, staged

LOCK_NUMBERED = """
LOCK TABLE public.consent_notices, public.credit_transactions, public.consent_events, public.admin_audit,
    public.products IN SHARE ROW EXCLUSIVE MODE
"""
LOCK_EMPTY = """
LOCK TABLE public.erasures, public.user_credits, public.credit_holds, public.credit_transactions,
    public.user_consents, public.consent_events IN ACCESS EXCLUSIVE MODE
"""
PATIENCE = "SET LOCAL lock_timeout = '10s'"
BUSY = "The tables are in use: stop the servers, then import again, which goes on from here."
RESERVE = """
INSERT INTO bases (kind, base)
SELECT $1, setval(s.name, nextval(s.name) + 2 * $2) - 2 * $2
FROM (SELECT pg_get_serial_sequence('public.' || quote_ident($1), 'id')) AS s(name)
"""
IS_EMPTY = "SELECT NOT EXISTS (SELECT FROM public.%I)"
DIFFERENT = """
INSERT INTO rejected (line, kind, reason)
SELECT s.line, %L, 'is there already, and differs' FROM %I s JOIN public.%I t ON (%s) = (%s)
WHERE ROW(%s) IS DISTINCT FROM ROW(%s)
"""
ADD = "INSERT INTO public.%I (%s) SELECT %s FROM %I s %s ON CONFLICT DO NOTHING"
ADD_NUMBERED = """
INSERT INTO public.%I (id, %s) OVERRIDING SYSTEM VALUE
SELECT b.base + s.line, %s FROM %I s JOIN bases b ON b.kind = %L %s ON CONFLICT DO NOTHING
"""
NOT_YET = """
WHERE hash_record_extended(ROW(%s), 0) NOT IN (SELECT hash_record_extended(ROW(%s), 0) FROM public.%I t)
"""
ADD_NOTICES = """
INSERT INTO public.consent_notices (id, purpose, version, locale, sha256, "text", published_at, binding_from)
OVERRIDING SYSTEM VALUE
SELECT CASE WHEN EXISTS (SELECT FROM public.consent_notices n WHERE n.id = s.id) THEN b.base + s.line ELSE s.id END,
       s.purpose, s.version, s.locale, s.sha256, s."text", s.published_at, s.binding_from
FROM staged_consent_notices s JOIN bases b ON b.kind = 'consent_notices'
ON CONFLICT (purpose, version, locale) DO NOTHING
"""
AFTER_NOTICES = """
SELECT setval(s.name, GREATEST(nextval(s.name), COALESCE((SELECT max(id) FROM public.consent_notices), 0)))
FROM (SELECT pg_get_serial_sequence('public.consent_notices', 'id')) AS s(name)
"""
MAP_NOTICES = """
UPDATE staged_consent_events e SET notice_id = n.id
FROM staged_consent_notices s JOIN public.consent_notices n USING (purpose, version, locale)
WHERE s.id = e.notice_id AND n.id <> s.id
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text AS owner, conname AS name, pg_get_constraintdef(oid) AS definition,
       contype::text AS type
FROM pg_constraint WHERE conrelid = to_regclass('public.' || quote_ident($1)) AND contype IN ('p', 'u', 'f', 'x')
"""
INDEXES = """
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i WHERE i.indrelid = to_regclass('public.' || quote_ident($1))
AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = i.indexrelid AND c.conrelid = i.indrelid)
"""
OUTCOME = "INSERT INTO outcomes (kind, imported) VALUES ($1, $2)"


async def prepare(connection: asyncpg.Connection, lines: int) -> None:
    """Reserve numbers for so many lines, and take over what is nobody's or stands for itself; in one transaction."""
    try:
        async with connection.transaction():
            await connection.execute(PATIENCE)
            await connection.execute(LOCK_NUMBERED)
            for kind in KINDS:
                if kind.has_identity:
                    await connection.execute(RESERVE, kind.name, lines)
            for kind in OTHERS:
                await _add_other(connection, kind)
            await connection.execute(MAP_NOTICES)
            await passed(connection, "prepared")
    except asyncpg.LockNotAvailableError:
        raise StateError(BUSY) from None


async def into_empty(connection: asyncpg.Connection, subject: Hash, said: Said) -> bool:
    """Take people over if nobody is there yet: without indexes and keys, which are made behind it; whether it was so.

    One transaction: whenever it ends early the tables are as they were, empty and with all their indexes.
    """
    try:
        async with connection.transaction():
            await connection.execute(PATIENCE)
            await connection.execute(LOCK_EMPTY)
            await connection.execute(MEMORY)
            for kind in WHOLE:
                if not await ddl.value(connection, IS_EMPTY, kind.name):
                    return False
            await leave_erased_out(connection, subject)
            constraints = [row for kind in WHOLE for row in await connection.fetch(CONSTRAINTS, kind.name)]
            indexes = [row for kind in WHOLE for row in await connection.fetch(INDEXES, kind.name)]
            await _without(connection, constraints, indexes)
            for kind in WHOLE:
                said(f"rows of {kind.name}")
                await add(connection, kind)
            for row in indexes:
                said(f"index {row['name']}")
                await ddl.run(connection, "%s", row["definition"])
            for row in sorted(constraints, key=lambda row: row["type"] == "f"):
                said(f"constraint {row['name']}")
                await ddl.run(
                    connection, "ALTER TABLE %s ADD CONSTRAINT %I %s", row["owner"], row["name"], row["definition"]
                )
            await passed(connection, "loaded")
    except asyncpg.LockNotAvailableError:
        raise StateError(BUSY) from None
    return True


async def _without(
    connection: asyncpg.Connection, constraints: Sequence[asyncpg.Record], indexes: Sequence[asyncpg.Record]
) -> None:
    for row in constraints:
        await ddl.run(connection, "ALTER TABLE %s DROP CONSTRAINT %I", row["owner"], row["name"])
    for row in indexes:
        await ddl.run(connection, "DROP INDEX %s", row["name"])


async def add(connection: asyncpg.Connection, kind: Kind, only: str = "") -> None:
    """Take rows of a kind over, those that the join `only` leaves."""
    names, values = columns_of(kind), columns_of(kind, "s")
    if kind.has_identity:
        count = await ddl.run(connection, ADD_NUMBERED, kind.name, names, values, staged(kind), kind.name, only)
    else:
        count = await ddl.run(connection, ADD, kind.name, names, values, staged(kind), only)
    await connection.execute(OUTCOME, kind.name, count)


async def _add_other(connection: asyncpg.Connection, kind: Kind) -> None:
    if kind.unique:
        here, there = keys_of(kind, "s"), keys_of(kind, "t")
        mine, theirs = columns_of(kind, "s"), columns_of(kind, "t")
        await ddl.run(connection, DIFFERENT, kind.name, staged(kind), kind.name, here, there, mine, theirs)
    if kind.names_id:
        status = await connection.execute(ADD_NOTICES)
        await connection.execute(AFTER_NOTICES)
        await connection.execute(OUTCOME, kind.name, int(status.rpartition(" ")[2]))
        return
    not_yet = await connection.fetchval(ddl.FORMAT, NOT_YET, [columns_of(kind, "s"), columns_of(kind, "t"), kind.name])
    await add(connection, kind, "" if kind.unique else not_yet)


def columns_of(kind: Kind, alias: str | None = None) -> str:
    """The columns of a kind, as a list for a statement."""
    return _listed(kind.columns, alias)


def keys_of(kind: Kind, alias: str | None = None) -> str:
    """The columns that make a row of a kind the same wherever it is kept."""
    return _listed(kind.identified_by, alias)


def _listed(names: Sequence[str], alias: str | None) -> str:
    return ", ".join(f'{alias}."{name}"' if alias else f'"{name}"' for name in names)
