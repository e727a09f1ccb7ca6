"""Database roles: the owner for migrations, the app with the privileges it needs, and a reader."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlmodel import SQLModel

from shopassist.db.statements import execute_quoted

ITERATIONS = 4096
MAINTAIN_SINCE_VERSION = 17

EXCESSIVE_PRIVILEGES_QUERY = """
SELECT c.oid::regclass::text AS table_name, a.privilege_type AS privilege,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee
FROM (VALUES
    ('alembic_version', '{INSERT,UPDATE,DELETE,TRUNCATE,MAINTAIN}'::text[]),
    ('consent_notices', '{UPDATE,DELETE,TRUNCATE}'),
    ('consent_events', '{UPDATE,TRUNCATE}'),
    ('admin_audit', '{DELETE,TRUNCATE}')
) AS restricted (name, privileges)
JOIN pg_class c ON c.oid = to_regclass(format('public.%I', restricted.name))
CROSS JOIN aclexplode(c.relacl) AS a
WHERE a.grantee <> c.relowner AND a.privilege_type = ANY (restricted.privileges)
ORDER BY 1, 2, 3
"""
"""Privileges on records that only grow, which only their owner may have. The erasure of a user needs the others."""
MISSING_PRIVILEGES_QUERY = """
SELECT array_agg(missing.privileges || ' on ' || missing.name ORDER BY missing.name) FROM (
    SELECT needed.name, string_agg(needed.privilege, ', ' ORDER BY needed.privilege) AS privileges FROM (
        SELECT name, privilege
        FROM unnest($1::text[]) AS name, unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS privilege
        EXCEPT VALUES ('consent_notices', 'UPDATE'), ('consent_notices', 'DELETE'), ('consent_events', 'UPDATE'),
            ('admin_audit', 'DELETE')
    ) AS needed
    WHERE NOT has_table_privilege(to_regclass(format('public.%I', needed.name)), needed.privilege)
    GROUP BY needed.name
) AS missing
"""
MISSING_SCHEMAS_QUERY = """
SELECT string_agg('USAGE on the schema ' || nspname, ', ') FROM pg_namespace n
WHERE (nspname = 'public' OR EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm' AND extnamespace = n.oid))
  AND NOT has_schema_privilege(oid, 'USAGE')
"""
EXTENSION_SCHEMA_QUERY = """
SELECT nspname FROM pg_namespace n JOIN pg_extension e ON e.extnamespace = n.oid
WHERE e.extname = 'pg_trgm' AND nspname <> 'public'
"""
MAX_NAMED = 3
HAS_PRIVILEGED_ATTRIBUTES_QUERY = """
SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls FROM pg_roles WHERE rolname = $1
"""
ROLE_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
RELATIONS_QUERY = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind = 'S' AS is_sequence
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'S')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
  AND NOT (c.relkind = 'S' AND EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i')))
ORDER BY c.relname
"""
FUNCTIONS_QUERY = """
SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'public' AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1
"""
PRIVILEGED_QUERY = """
SELECT rolsuper OR EXISTS (
    SELECT FROM pg_class WHERE oid = to_regclass('public.credit_transactions')
    AND pg_has_role(current_user, relowner, 'MEMBER')
) FROM pg_roles WHERE rolname = current_user
"""


@dataclass(frozen=True, slots=True)
class Role:
    """A login role; without a password it keeps its current one."""

    name: str
    password: str | None


@dataclass(frozen=True, slots=True)
class Roles:
    """The three roles of a deployment."""

    owner: Role
    app: Role
    reader: Role


async def provision(connection: asyncpg.Connection, roles: Roles, timeouts: dict[str, str]) -> None:
    """Create or update the roles and give the schema and its objects to the owner. Idempotent.

    `connection` is an administrator's; `timeouts` become settings of the app's role, for connections through a pooler.
    Raises asyncpg's errors.
    """
    async with connection.transaction():
        database = await connection.fetchval("SELECT current_database()")
        for role in (roles.owner, roles.app, roles.reader):
            await _ensure_login_role(connection, role)
        owner, app, reader = roles.owner.name, roles.app.name, roles.reader.name
        for name, value in timeouts.items():
            await execute_quoted(connection, "ALTER ROLE %I SET %I = %L", app, name, value)
        await execute_quoted(connection, "REVOKE ALL ON DATABASE %I FROM PUBLIC", database)
        await execute_quoted(connection, "GRANT CONNECT ON DATABASE %I TO %I, %I, %I", database, owner, app, reader)
        await execute_quoted(connection, "GRANT CREATE, TEMPORARY ON DATABASE %I TO %I", database, owner)
        await connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        await execute_quoted(connection, "GRANT USAGE, CREATE ON SCHEMA public TO %I", owner)
        await execute_quoted(connection, "GRANT USAGE ON SCHEMA public TO %I, %I", app, reader)
        if schema := await connection.fetchval(EXTENSION_SCHEMA_QUERY):
            await execute_quoted(connection, "GRANT USAGE ON SCHEMA %I TO %I, %I, %I", schema, owner, app, reader)
        await execute_quoted(connection, "GRANT %I TO CURRENT_USER", owner)  # required to change the owner of tables
        await _grant_on_existing(connection, roles)
        await _grant_on_future(connection, roles)


async def _ensure_login_role(connection: asyncpg.Connection, role: Role) -> None:
    if not await connection.fetchval(ROLE_EXISTS, role.name):
        await execute_quoted(connection, "CREATE ROLE %I", role.name)
    await execute_quoted(connection, "ALTER ROLE %I LOGIN", role.name)
    # Only superusers may name all attributes, even to take them away; hosters' administrators are none.
    if await connection.fetchval(HAS_PRIVILEGED_ATTRIBUTES_QUERY, role.name):
        unprivileged = "ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
        await execute_quoted(connection, unprivileged, role.name)
    if role.password is not None:
        await execute_quoted(connection, "ALTER ROLE %I PASSWORD %L", role.name, build_scram_verifier(role.password))


async def _grant_on_existing(connection: asyncpg.Connection, roles: Roles) -> None:
    """Give existing objects to the owner and the required privileges to the other roles."""
    owner, app, reader = roles.owner.name, roles.app.name, roles.reader.name
    for relation in await connection.fetch(RELATIONS_QUERY):
        name = relation["name"]
        if relation["is_sequence"]:
            await execute_quoted(connection, "ALTER SEQUENCE %s OWNER TO %I", name, owner)
            continue
        granted = ", ".join(_list_table_privileges(connection))
        await execute_quoted(connection, "ALTER TABLE %s OWNER TO %I", name, owner)
        await execute_quoted(connection, "REVOKE ALL ON %s FROM PUBLIC, %I, %I", name, app, reader)
        await execute_quoted(connection, "GRANT %s ON %s TO %I", granted, name, app)
        await execute_quoted(connection, "GRANT SELECT ON %s TO %I", name, reader)
    for excess in await connection.fetch(EXCESSIVE_PRIVILEGES_QUERY):
        await execute_quoted(
            connection, "REVOKE %s ON %s FROM %s", excess["privilege"], excess["table_name"], excess["grantee"]
        )
    for function in await connection.fetch(FUNCTIONS_QUERY):
        await execute_quoted(connection, "ALTER FUNCTION %s OWNER TO %I", function["name"], owner)
    await execute_quoted(connection, "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO %I", app)
    await execute_quoted(connection, "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO %I", reader)


async def _grant_on_future(connection: asyncpg.Connection, roles: Roles) -> None:
    """Grant default privileges on objects that the owner's migrations will create."""
    for grant, role in (
        (f"{', '.join(_list_table_privileges(connection))} ON TABLES", roles.app),
        ("USAGE ON SEQUENCES", roles.app),
        ("SELECT ON TABLES", roles.reader),
        ("SELECT ON SEQUENCES", roles.reader),
    ):
        statement = "ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA public GRANT %s TO %I"
        await execute_quoted(connection, statement, roles.owner.name, grant, role.name)


def _list_table_privileges(connection: asyncpg.Connection) -> list[str]:
    has_maintain = connection.get_server_version().major >= MAINTAIN_SINCE_VERSION
    return ["SELECT", "INSERT", "UPDATE", "DELETE", *(["MAINTAIN"] if has_maintain else [])]


async def is_privileged(connection: asyncpg.Connection) -> bool:
    """Return whether the connected role is a superuser or owns the ledger, and could disable its triggers."""
    return bool(await connection.fetchval(PRIVILEGED_QUERY))


async def find_missing_privileges(fetch_value: Callable[..., Awaitable[Any]]) -> str | None:
    """Return what the connected role may not do with the tables although the app must, or None.

    `fetch_value` returns the value of a query with parameters.
    """
    missing: list[str] = await fetch_value(MISSING_PRIVILEGES_QUERY, list(SQLModel.metadata.tables)) or []
    more = len(missing) - MAX_NAMED
    return "; ".join([*missing[:MAX_NAMED], *([f"more on {more} other tables"] if more > 0 else [])]) or None


async def is_setting_off(connection: asyncpg.Connection, setting: str) -> bool:
    """Return whether a time limit is not set for the connected role."""
    return bool(await connection.fetchval("SELECT current_setting($1) = '0'", setting))


def build_scram_verifier(password: str) -> str:
    """Return PostgreSQL's SCRAM verifier of a password (RFC 5803), which cannot be used to log in."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ITERATIONS, *parts)
