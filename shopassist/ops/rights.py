"""Properties, owners, grants and settings of a database, which a restore keeps: dumps are restored without them."""

import json
import re
from collections.abc import Iterable
from itertools import groupby

import asyncpg
from pydantic import BaseModel, ConfigDict, Field

from shopassist.db.roles import MAINTAIN_SINCE_VERSION
from shopassist.db.statements import execute_quoted, quote
from shopassist.errors import BackupError

DATABASE = "DATABASE"
REVISION_TABLE = "TABLE public.alembic_version"
PUBLIC = "PUBLIC"
DEFAULT_KINDS = {"r": "TABLES", "S": "SEQUENCES", "f": "ROUTINES", "T": "TYPES", "n": "SCHEMAS", "L": "LARGE OBJECTS"}
"""Kinds of objects with default grants, by PostgreSQL's letters."""

LIST_SETTINGS = {"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"}
"""Settings that are lists of names."""

LIST_ENTRY = re.compile(r'"((?:[^"]|"")*)"|([^",\s]+)')
PRIVILEGE = re.compile("[A-Z ]+")
ALL_ON_TABLES = {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}
"""All privileges on tables before MAINTAIN was added."""

NAMES_QUERY = """
SELECT quote_ident(rolname) AS name, 'role' AS kind FROM pg_roles
UNION ALL SELECT quote_ident(nspname), 'schema' FROM pg_namespace
UNION ALL SELECT format('TABLE %I.%I (%I)', nspname, relname, attname), 'column'
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE NOT attisdropped
"""
OBJECTS_QUERY = """
WITH schemas AS (SELECT * FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
relations AS (
    SELECT c.*, format('%s %I.%I', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, nspname, relname) AS name
    FROM pg_class c JOIN schemas n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),
objects (class, id, name, attribute, owner, acl) AS (
    SELECT 'pg_database'::regclass, oid, 'DATABASE', NULL, datdba, datacl FROM pg_database
        WHERE datname = current_database()
    UNION ALL SELECT 'pg_namespace'::regclass, oid, format('SCHEMA %I', nspname), NULL, nspowner, nspacl FROM schemas
    UNION ALL SELECT 'pg_class'::regclass, oid, name, NULL, relowner, relacl FROM relations
    UNION ALL SELECT 'pg_class'::regclass, r.oid, name, quote_ident(attname), relowner, attacl
        FROM relations r JOIN pg_attribute ON attrelid = r.oid WHERE attacl IS NOT NULL AND NOT attisdropped
    UNION ALL SELECT 'pg_proc'::regclass, p.oid,
        format('ROUTINE %I.%I(%s)', nspname, proname, pg_get_function_identity_arguments(p.oid)), NULL, proowner, proacl
        FROM pg_proc p JOIN schemas n ON n.oid = pronamespace
    UNION ALL SELECT 'pg_type'::regclass, t.oid, format('TYPE %I.%I', nspname, typname), NULL, typowner, typacl
        FROM pg_type t JOIN schemas n ON n.oid = typnamespace WHERE typtype IN ('d', 'e')
)
SELECT name, attribute, quote_ident(pg_get_userbyid(owner)) AS owner, acl IS NULL AS is_default,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END AS role, privilege_type AS privilege,
    is_grantable AS grantable, EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = class AND d.objid = id AND d.deptype IN ('a', 'i')
    ) AS has_parent
FROM objects LEFT JOIN LATERAL aclexplode(acl) WITH ORDINALITY AS a ON true LEFT JOIN pg_roles g ON g.oid = a.grantee
WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = class AND d.objid = id AND d.deptype = 'e')
ORDER BY name, attribute NULLS FIRST, ordinality
"""
DEFAULTS_QUERY = """
SELECT quote_ident(pg_get_userbyid(defaclrole)) AS creator, quote_ident(nspname) AS within, defaclobjtype::text AS kind,
    CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(rolname) END AS role, privilege_type AS privilege,
    is_grantable AS grantable
FROM pg_default_acl LEFT JOIN pg_namespace n ON n.oid = defaclnamespace
LEFT JOIN LATERAL aclexplode(defaclacl) WITH ORDINALITY AS a ON true LEFT JOIN pg_roles g ON g.oid = a.grantee
ORDER BY 1, 2, 3, ordinality
"""
SETTINGS_QUERY = """
SELECT quote_ident(rolname) AS role, split_part(setting, '=', 1) AS name,
    substr(setting, strpos(setting, '=') + 1) AS value
FROM pg_db_role_setting CROSS JOIN unnest(setconfig) WITH ORDINALITY AS s (setting, position)
LEFT JOIN pg_roles r ON r.oid = setrole
WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (setrole = 0 OR rolname IS NOT NULL)
ORDER BY rolname, position
"""

DEFAULT_TABLESPACE = "pg_default"
PROPERTIES_QUERY = """
SELECT to_jsonb(d) || jsonb_build_object('encoding', pg_encoding_to_char(encoding), 'tablespace', spcname)
FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = $1
"""
IDENTIFIERS = {"LOCALE_PROVIDER", "TABLESPACE"}
LOCALE_PROVIDERS = {"b": ("builtin", "BUILTIN_LOCALE"), "i": ("icu", "ICU_LOCALE")}


class Grant(BaseModel):
    """One privilege of one role, on one column or the whole object. Names are quoted as in SQL."""

    model_config = ConfigDict(frozen=True)

    role: str
    privilege: str
    grantable: bool
    column: str | None = None


class ObjectRights(BaseModel):
    """The owner of an object and the grants on it."""

    owner: str
    has_parent: bool = Field(False, description="whether its owner is that of another object: a column's sequence")
    is_default: bool = Field(description="whether the object itself has PostgreSQL's default grants")
    grants: list[Grant] = Field(default_factory=list)


class DefaultGrants(BaseModel):
    """Grants on the objects that a role will create, in one schema or everywhere."""

    creator: str
    within: str | None
    kind: str
    grants: list[Grant] = Field(default_factory=list)


class SessionSetting(BaseModel):
    """A setting of all sessions in the database, or of one role's."""

    role: str | None
    name: str
    value: str


class DatabaseRights(BaseModel):
    """Who owns what in a database, who may do what, and the settings of sessions."""

    major: int = Field(0, description="version of the server")
    objects: dict[str, ObjectRights] = Field(default_factory=dict)
    defaults: list[DefaultGrants] = Field(default_factory=list)
    settings: list[SessionSetting] = Field(default_factory=list)

    @property
    def has_schema(self) -> bool:
        """Return whether the database has the product's tables."""
        return REVISION_TABLE in self.objects


async def read_rights(connection: asyncpg.Connection) -> DatabaseRights:
    """Return the rights in the connected database, without the objects of extensions. Raises asyncpg's errors.

    It changes the search path of the session, so that names of types are complete.
    """
    await connection.execute("SET search_path = pg_catalog")
    rights = DatabaseRights(major=connection.get_server_version().major)
    for row in await connection.fetch(OBJECTS_QUERY):
        found = rights.objects.setdefault(row["name"], ObjectRights(**row))
        if row["role"]:
            found.grants.append(Grant(**row, column=row["attribute"]))
    for key, rows in groupby(await connection.fetch(DEFAULTS_QUERY), lambda row: row[:3]):
        grants = [Grant(**row) for row in rows if row["role"]]
        rights.defaults.append(DefaultGrants(creator=key[0], within=key[1], kind=key[2], grants=grants))
    rights.settings.extend(SessionSetting(**row) for row in await connection.fetch(SETTINGS_QUERY))
    return rights


async def create_database_like(connection: asyncpg.Connection, model: str, new: str) -> None:
    """Create an empty database with the encoding, locale, tablespace and connection limit of another one."""
    found = json.loads(await connection.fetchval(PROPERTIES_QUERY, model) or "null")
    if found is None:
        raise BackupError(f"The server of the administrator has no database {model}.")
    options = {"ENCODING": found["encoding"], "LC_COLLATE": found["datcollate"], "LC_CTYPE": found["datctype"]}
    if found["tablespace"] != DEFAULT_TABLESPACE:  # which needs no privilege
        options["TABLESPACE"] = found["tablespace"]
    if provider := LOCALE_PROVIDERS.get(found.get("datlocprovider")):
        options |= {"LOCALE_PROVIDER": provider[0], provider[1]: found.get("datlocale") or found["daticulocale"]}
        if rules := found.get("daticurules"):
            options["ICU_RULES"] = rules
    values = " ".join(f"{name} {'%I' if name in IDENTIFIERS else '%L'}" for name in options)
    creation = f"CREATE DATABASE %I TEMPLATE template0 CONNECTION LIMIT %s {values}"
    await execute_quoted(connection, creation, new, str(found["datconnlimit"]), *options.values())


async def restore_rights(
    connection: asyncpg.Connection, replaced: DatabaseRights, saved: DatabaseRights | None
) -> None:
    """Give the connected, restored database the rights of the replaced one, or those `saved` with the backup.

    Those of the backup are for objects that the replaced database lacks; they come first if it has no tables of this
    product. What names a role that does not exist is left out. Raises asyncpg's errors, and then changes nothing.
    """
    rights = [replaced, saved] if saved else [replaced]
    if not replaced.has_schema:
        rights.reverse()
    for one in rights:
        if one.major < MAINTAIN_SINCE_VERSION <= connection.get_server_version().major:
            _add_maintenance(one)
    names = {kind: set[str]() for kind in ("role", "schema", "column")}
    for row in await connection.fetch(NAMES_QUERY):
        names[row["kind"]].add(row["name"])
    statements = await _list_object_statements(connection, rights, replaced.objects[DATABASE].owner, names)
    for default in rights[0].defaults:
        is_known = default.creator in names["role"] and default.kind in DEFAULT_KINDS
        if is_known and default.within in {*names["schema"], None}:
            statements += _list_default_statements(default, names["role"])
    for setting in rights[0].settings:
        if setting.role in {*names["role"], None}:
            statements.append(await _format_setting(connection, setting))
    # Names in them are quoted by PostgreSQL, and exist: what the manifest says is only compared with them.
    async with connection.transaction():
        for statement in statements:
            await connection.execute(statement)


def _add_maintenance(rights: DatabaseRights) -> None:
    """Let roles with all privileges on a table of an older server have the one that was added since."""
    tables = [one.grants for name, one in rights.objects.items() if name.startswith("TABLE ")]
    tables += [one.grants for one in rights.defaults if DEFAULT_KINDS.get(one.kind) == "TABLES"]
    for grants in tables:
        for role in dict.fromkeys(grant.role for grant in grants):
            held = {grant.privilege for grant in grants if grant.role == role and not grant.column}
            if held >= ALL_ON_TABLES:
                grants.append(Grant(role=role, privilege="MAINTAIN", grantable=False))


async def _list_object_statements(
    connection: asyncpg.Connection, rights: list[DatabaseRights], database_owner: str, names: dict[str, set[str]]
) -> list[str]:
    """Return the statements for the objects of the connected database, each after those that it depends on.

    A new owner needs rights on the schema, the owner grants, and who gave the database away may lack rights in it.
    """
    database, restorer = await connection.fetchrow("SELECT quote_ident(current_database()), quote_ident(current_user)")
    schemas: list[str] = []
    owners: list[str] = []
    grants: list[str] = []
    last: list[str] = []
    for name, current in (await read_rights(connection)).objects.items():
        target = f"DATABASE {database}" if name == DATABASE else name
        known = [one.objects[name] for one in rights if name in one.objects]
        kept = next((one for one in known if one.owner in names["role"]), None)
        owner = kept.owner if kept else database_owner if current.owner == restorer else current.owner
        ownership = [f"ALTER {target} OWNER TO {owner}"] if owner != current.owner and not current.has_parent else []
        granted = _list_kept_grants(target, kept, {owner, *(one.role for one in current.grants)}, names) if kept else []
        if name == DATABASE or name.startswith("SCHEMA "):
            (last if name == DATABASE else schemas).extend(ownership + granted)
        else:
            owners += ownership
            grants += granted
    return schemas + owners + grants + last


def _list_kept_grants(target: str, kept: ObjectRights, present: set[str], names: dict[str, set[str]]) -> list[str]:
    """Return the statements for kept grants, which replace those of the `present` roles if all roles exist."""
    given = [one for one in kept.grants if not one.column or f"{target} ({one.column})" in names["column"]]
    statements = []
    if not kept.is_default and all(one.role in {*names["role"], PUBLIC} for one in given):
        statements = [f"REVOKE ALL ON {target} FROM {', '.join(sorted({PUBLIC, *present}))}"]
    return statements + _list_grants(target, given, names["role"])


def _list_default_statements(default: DefaultGrants, roles: set[str]) -> list[str]:
    start, kind = f"ALTER DEFAULT PRIVILEGES FOR ROLE {default.creator}", DEFAULT_KINDS[default.kind]
    if default.within:  # they add to those of all schemas
        return [f"{start} IN SCHEMA {default.within} {grant}" for grant in _list_grants(kind, default.grants, roles)]
    revoke = f"{start} REVOKE ALL ON {kind} FROM {PUBLIC}, {default.creator}"
    return [revoke, *(f"{start} {grant}" for grant in _list_grants(kind, default.grants, roles))]


def _list_grants(target: str, grants: Iterable[Grant], roles: set[str]) -> list[str]:
    return [
        f"GRANT {grant.privilege}{f' ({grant.column})' if grant.column else ''} ON {target} TO {grant.role}"
        f"{' WITH GRANT OPTION' if grant.grantable else ''}"
        for grant in grants
        if grant.role in {*roles, PUBLIC} and PRIVILEGE.fullmatch(grant.privilege)
    ]


async def _format_setting(connection: asyncpg.Connection, setting: SessionSetting) -> str:
    entries = [setting.value]
    if setting.name in LIST_SETTINGS:
        entries = [quoted.replace('""', '"') or plain for quoted, plain in LIST_ENTRY.findall(setting.value)] or [""]
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    sessions = f"ROLE {setting.role} IN DATABASE {database}" if setting.role else f"DATABASE {database}"
    values = ", ".join(["%L"] * len(entries))
    return await quote(connection, f"ALTER %s SET %I TO {values}", sessions, setting.name, *entries)
