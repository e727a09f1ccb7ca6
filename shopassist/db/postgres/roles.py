"""Roles of the database: an owner for migrations, the app with the DML it needs, and one that only reads.

Passwords are never sent: what goes to the server, and perhaps into its log, is the SCRAM verifier (RFC 5803).
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

import asyncpg

from shopassist.db.postgres.ddl import run

ITERATIONS = 4096
MAINTAIN_SINCE = 17

ONLY_READ = frozenset({"alembic_version"})
ONLY_ADDED = frozenset({"consent_notices"})
ONLY_ERASED = frozenset({"consent_events"})
ONLY_PSEUDONYMISED = frozenset({"admin_audit"})
"""Tables that only grow. Erasing a person removes their events, and their name from the audit: triggers see to it."""
EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
RELATIONS = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relname AS plain, c.relkind = 'S' AS is_sequence
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'S')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
  AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))
ORDER BY c.relname
"""
FUNCTIONS = """
SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'public' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""
PRIVILEGED = """
SELECT rolsuper OR EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass('public.credit_transactions')
    AND pg_has_role(current_user, relowner, 'MEMBER')
) FROM pg_roles WHERE rolname = current_user
"""


@dataclass(frozen=True, slots=True)
class Role:
    """A role that logs in; without a password it keeps the one it has."""

    name: str
    password: str | None


@dataclass(frozen=True, slots=True)
class Roles:
    """The three."""

    owner: Role
    app: Role
    reader: Role


async def provision(connection: asyncpg.Connection, roles: Roles, timeouts: dict[str, str]) -> None:
    """Make the roles, or bring them to what they should be, and give the schema and what is in it to the owner.

    `connection` is an administrator's, to the product's database; `timeouts` are set for the app's role, for where no
    connection can set its own. Doing it again changes nothing. Raises what asyncpg raises.
    """
    async with connection.transaction():
        database = await connection.fetchval("SELECT current_database()")
        for role in (roles.owner, roles.app, roles.reader):
            await _log_in(connection, role)
        owner, app, reader = roles.owner.name, roles.app.name, roles.reader.name
        for name, value in timeouts.items():
            await run(connection, "ALTER ROLE %I SET %I = %L", app, name, value)
        await run(connection, "REVOKE ALL ON DATABASE %I FROM PUBLIC", database)
        await run(connection, "GRANT CONNECT ON DATABASE %I TO %I, %I, %I", database, owner, app, reader)
        await run(connection, "GRANT CREATE, TEMPORARY ON DATABASE %I TO %I", database, owner)
        await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        await run(connection, "GRANT USAGE, CREATE ON SCHEMA public TO %I", owner)
        await run(connection, "GRANT USAGE ON SCHEMA public TO %I, %I", app, reader)
        await run(connection, "GRANT %I TO CURRENT_USER", owner)  # who gives tables away must be of the new owner's
        await _existing(connection, roles)
        await _future(connection, roles)


async def _log_in(connection: asyncpg.Connection, role: Role) -> None:
    if not await connection.fetchval(EXISTS, role.name):
        await run(connection, "CREATE ROLE %I", role.name)
    plain = "ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    await run(connection, plain, role.name)
    if role.password is not None:
        await run(connection, "ALTER ROLE %I PASSWORD %L", role.name, verifier(role.password))


async def _existing(connection: asyncpg.Connection, roles: Roles) -> None:
    """What is there goes to the owner, and the others get what they need of it."""
    owner, app, reader = roles.owner.name, roles.app.name, roles.reader.name
    for relation in await connection.fetch(RELATIONS):
        name, plain = relation["name"], relation["plain"]
        if relation["is_sequence"]:
            await run(connection, "ALTER SEQUENCE %s OWNER TO %I", name, owner)
            continue
        await run(connection, "ALTER TABLE %s OWNER TO %I", name, owner)
        await run(connection, "REVOKE ALL ON %s FROM PUBLIC, %I, %I", name, app, reader)
        await run(connection, "GRANT SELECT ON %s TO %I, %I", name, app, reader)
        if plain in ONLY_READ:
            continue
        await run(connection, "GRANT INSERT ON %s TO %I", name, app)
        if plain not in ONLY_ADDED | ONLY_ERASED:
            await run(connection, "GRANT UPDATE ON %s TO %I", name, app)
        if plain not in ONLY_ADDED | ONLY_PSEUDONYMISED:
            await run(connection, "GRANT DELETE ON %s TO %I", name, app)
        if _has_maintain(connection):
            await run(connection, "GRANT MAINTAIN ON %s TO %I", name, app)
    for function in await connection.fetch(FUNCTIONS):
        await run(connection, "ALTER FUNCTION %s OWNER TO %I", function["name"], owner)
    await run(connection, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %I", app)
    await run(connection, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO %I", reader)


async def _future(connection: asyncpg.Connection, roles: Roles) -> None:
    """What the owner's migrations will make is given to the others at once."""
    maintain = ", MAINTAIN" if _has_maintain(connection) else ""
    for grant, role in (
        (f"SELECT, INSERT, UPDATE, DELETE{maintain} ON TABLES", roles.app),
        ("USAGE ON SEQUENCES", roles.app),
        ("SELECT ON TABLES", roles.reader),
        ("SELECT ON SEQUENCES", roles.reader),
    ):
        statement = "ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public GRANT %s TO %I"
        await run(connection, statement, roles.owner.name, grant, role.name)


def _has_maintain(connection: asyncpg.Connection) -> bool:
    """Whether there is a right to vacuum tables of others."""
    return bool(connection.get_server_version().major >= MAINTAIN_SINCE)


async def is_privileged(connection: asyncpg.Connection) -> bool:
    """Whether who is connected is a superuser, or of the role that owns the ledger and could switch its rules off."""
    return bool(await connection.fetchval(PRIVILEGED))


async def is_off(connection: asyncpg.Connection, setting: str) -> bool:
    """Whether a time limit is not in force on who is connected."""
    return bool(await connection.fetchval("SELECT current_setting($1) = '0'", setting))


def verifier(password: str) -> str:
    """What PostgreSQL keeps of a password (RFC 5803): whoever reads it cannot log in with it."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    told = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ITERATIONS, *told)
