"""Databases that tests use one after another, because creating one costs more than most tests.

A database is used again only if nothing but rows was changed in it: schema, settings, rights and initial rows are
unchanged, it is small, and no other connection is open. Otherwise it is dropped.
"""

from uuid import uuid4

import asyncpg

from tests.support.helpers import execute, replace_database_name

COPYING = "STRATEGY file_copy"
"""Without fsync, copying files is faster than writing every page to the WAL: 0.1 s less per database."""

MORE_BYTES = 300_000
"""Maximum growth of a database that is used again."""

STATE = """
SELECT md5(string_agg(x, E'\\n' ORDER BY x)) AS shape, sum(size)::bigint AS size, bool_or(others) AS others FROM (
    SELECT concat_ws(' ', 'class', oid::regclass, relkind, relpersistence, reloptions, relacl, relowner) AS x,
           CASE WHEN relkind IN ('r', 'i') THEN pg_relation_size(oid) ELSE 0 END AS size, false AS others
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'column', attrelid::regclass, attname, atttypid, attnotnull, attacl), 0, false
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0
    UNION ALL
    SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled), 0, false FROM pg_trigger
    WHERE NOT tgisinternal
    UNION ALL
    SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid)), 0, false
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'index', indexrelid::regclass, indisvalid), 0, false
    FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'function', oid::regprocedure, proowner, proacl, md5(prosrc)), 0, false
    FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'setting', setrole, setconfig), 0, false FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL
    SELECT concat_ws(' ', 'database', datacl, datdba, datallowconn), 0, false FROM pg_database
    WHERE datname = current_database()
    UNION ALL
    SELECT concat_ws(' ', 'schema', nspname, nspowner, nspacl), 0, false FROM pg_namespace
    WHERE nspname NOT LIKE 'pg\\_%'
    UNION ALL
    SELECT concat_ws(' ', 'default', defaclrole, defaclobjtype, defaclacl), 0, false FROM pg_default_acl
    UNION ALL
    SELECT concat_ws(' ', 'revision', version_num), 0, false FROM alembic_version
    UNION ALL
    SELECT 'others', 0, true FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
) AS s
"""
TABLES = """
SELECT format('%I', relname) AS name FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version' ORDER BY 1
"""
RESTART = """
SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'
"""


class DatabasePool:
    """Copies of a template."""

    def __init__(self, server_url: str, template: str) -> None:
        """Create an empty pool."""
        self._server_url = server_url
        self._template = template
        self._idle: list[str] = []
        self._shape: str | None = None
        self._size = 0
        self._emptying = ""

    async def take(self) -> str:
        """Return the connection string of a database that is equal to the template."""
        if self._idle:
            return replace_database_name(self._server_url, self._idle.pop())
        name = f"test_{uuid4().hex}"
        await execute(self._server_url, f"CREATE DATABASE {name} TEMPLATE {self._template} {COPYING}")
        url = replace_database_name(self._server_url, name)
        if self._shape is None:
            connection = await asyncpg.connect(url)
            self._shape, self._size, _ = await connection.fetchrow(STATE)
            names = [row["name"] for row in await connection.fetch(TABLES)]
            look = "SELECT EXISTS (SELECT FROM {})"
            filled = [name for name in names if await connection.fetchval(look.format(name))]
            assert not filled, f"a new database is expected to be empty, yet {filled} are not"
            # Append-only tables have triggers that would refuse this.
            deletes = "; ".join("DELETE FROM {}".format(name) for name in names)  # noqa: S608, UP032 - quoted
            self._emptying = f"SET session_replication_role = replica; {deletes}; {RESTART}"
            await connection.close()
        return url

    async def give_back(self, url: str) -> None:
        """Make the database available to another test, or drop it."""
        name = url.rpartition("/")[2]
        if await self._emptied(url):
            self._idle.append(name)
        else:
            await execute(self._server_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def _emptied(self, url: str) -> bool:
        """Delete all rows; return False if a test changed or broke anything else."""
        try:
            connection = await asyncpg.connect(url, timeout=10)
        except (OSError, asyncpg.PostgresError):
            return False
        try:
            state = await connection.fetchrow(STATE)
            if state["others"] or state["shape"] != self._shape or state["size"] > self._size + MORE_BYTES:
                return False
            await connection.execute(self._emptying)
        except asyncpg.PostgresError:
            return False
        else:
            return True
        finally:
            await connection.close()
