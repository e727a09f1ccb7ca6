"""Writing a snapshot: all of it as it is at one instant, row by row out of the database."""

from pathlib import Path

import asyncpg
from sqlalchemy import URL

from shopassist.db.migrate import connected, known_revisions, require_current
from shopassist.db.postgres import ddl
from shopassist.errors import StateError
from shopassist.models.snapshot import KINDS, Kind
from shopassist.ops.operator import recorded
from shopassist.ops.state.file import Shown, Writer, written

PATIENT = """
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET TimeZone = 'UTC'; SET DateStyle = 'ISO';
SET row_security = off
"""
"""A policy that hides rows is an error rather than a snapshot without them."""

ESTIMATE = """
SELECT COALESCE(sum(GREATEST(reltuples, 0)), 0)::bigint FROM pg_class
WHERE oid = ANY(SELECT to_regclass('public.' || name) FROM unnest($1::text[]) AS n(name))
"""
UNFINISHED = "SELECT EXISTS (SELECT FROM erasures WHERE finished_at IS NULL)"
ROWS = "SELECT row_to_json(r) FROM (SELECT %L AS kind, %s FROM public.%I ORDER BY %s) AS r"
EXPORT_STATE = "export_state"


async def exported(url: URL, path: Path, key: str, shown: Shown) -> dict[str, int]:
    """Write the state of the database of `url`; how many rows of each kind. `key` tells its key from another.

    Raises `StateError`, `MigrationError` and `StartupError`; no file is left behind then.
    """
    await require_current(url)
    async with connected(url) as connection, written(path) as writer:
        await connection.execute(PATIENT)
        await recorded(connection, EXPORT_STATE, path.name)
        total = await connection.fetchval(ESTIMATE, [kind.name for kind in KINDS])
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if await connection.fetchval(UNFINISHED):
                raise StateError("Somebody is being erased: export when that is finished, in a minute.")
            writer.header({"schema": known_revisions()[-1], "key": key})
            for kind in KINDS:
                await _write(connection, kind, writer, shown, total)
    return writer.rows


async def _write(connection: asyncpg.Connection, kind: Kind, writer: Writer, shown: Shown, total: int) -> None:
    async def taken(data: bytes) -> None:
        writer.add(kind.name, data)
        done = sum(writer.rows.values())
        shown(done, max(total, done))

    columns = ["id", *kind.columns] if kind.names_id else kind.columns
    names = ", ".join(f'"{name}"' for name in columns)
    writer.rows[kind.name] = 0
    await ddl.copy_out(connection, ROWS, taken, kind.name, names, kind.name, kind.order)
