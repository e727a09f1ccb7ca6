"""What `shopassist backup restore` replaces, and what it keeps, on a real database and through the command line."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pyrage
import pytest

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.migrate import list_known_revisions
from shopassist.ops.backups import get_dump_file, get_manifest_file, list_backups, write_manifest
from tests.support.backups import Shop
from tests.support.databases import run_postgres
from tests.support.helpers import execute, replace_database_name


@pytest.fixture
async def shop(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    """Return a shop with an account, and drop afterwards what restores left."""
    shop = Shop(database_url, tmp_path / "backups", monkeypatch)
    await shop.execute("""
        INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
        VALUES ('auth0|1', false, 0, 50, now())
    """)
    yield shop
    await drop_databases(shop, f"{shop.database}_%")


async def drop_databases(shop: Shop, pattern: str) -> None:
    """Drop the databases with names that match a pattern of LIKE."""
    connection = await asyncpg.connect(replace_database_name(shop.url, "postgres"))
    try:
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE $1", pattern):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture
async def roles(shop: Shop) -> AsyncIterator[dict[str, str]]:
    """Return the quoted names of four roles that `db provision` did not make; one needs its quotes."""
    roles = {name: f"{name}_{uuid4().hex[:8]}" for name in ("owner", "app", "analyst")}
    roles["odd"] = f'"Odd ""{uuid4().hex[:8]}"" %"'
    for role in roles.values():
        await shop.execute(f"CREATE ROLE {role}")
    yield roles
    await drop_databases(shop, f"{shop.database}%")
    for role in roles.values():
        await execute(replace_database_name(shop.url, "postgres"), f"DROP ROLE {role}")


@pytest.fixture
async def furnished(shop: Shop, roles: dict[str, str]) -> Shop:
    """Return the shop with owners, grants and settings of every kind."""
    owner, app_role, analyst, odd = roles["owner"], roles["app"], roles["analyst"], roles["odd"]
    await shop.execute(
        f"GRANT CREATE ON SCHEMA public TO {owner}",
        f"ALTER TABLE user_credits OWNER TO {owner}",
        f"ALTER TABLE credit_transactions OWNER TO {odd}",
        f"ALTER FUNCTION refuse_change() OWNER TO {owner}",
        f"CREATE SCHEMA reports AUTHORIZATION {analyst}",
        f"GRANT USAGE ON SCHEMA reports TO {odd} WITH GRANT OPTION",
        "CREATE TYPE public.mood AS ENUM ('good')",
        f"ALTER TYPE public.mood OWNER TO {odd}",
        "REVOKE USAGE ON TYPE public.mood FROM PUBLIC",
        "CREATE VIEW reports.balances AS SELECT user_id, available_credits FROM public.user_credits",
        f"ALTER VIEW reports.balances OWNER TO {analyst}",
        "CREATE SEQUENCE public.numbers",
        f"GRANT USAGE ON SEQUENCE public.numbers TO {app_role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON user_credits, products TO {app_role}",
        f"GRANT USAGE ON SEQUENCE credit_transactions_id_seq TO {app_role}",
        f"GRANT SELECT (user_id, available_credits) ON user_credits TO {analyst}",
        "GRANT SELECT ON products TO PUBLIC",
        f"REVOKE DELETE ON user_credits FROM {owner}",
        "REVOKE EXECUTE ON FUNCTION refuse_change() FROM PUBLIC",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {analyst}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        f"REVOKE ALL ON DATABASE {shop.database} FROM PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {shop.database} TO {app_role}, {odd}",
        f'ALTER DATABASE {shop.database} SET search_path TO "$user", public, reports',
        f"ALTER DATABASE {shop.database} SET work_mem = '7MB'",
        f"ALTER DATABASE {shop.database} SET shop.motto = 'it''s 100 %, \"cheap\"'",
        f"ALTER DATABASE {shop.database} CONNECTION LIMIT 77",
        f"ALTER ROLE {app_role} IN DATABASE {shop.database} SET statement_timeout = '9s'",
        f"ALTER DATABASE {shop.database} OWNER TO {owner}",
        f"ALTER DATABASE {shop.database} SET default_transaction_read_only = on",
    )
    return shop


async def test_rights_are_kept(furnished: Shop) -> None:
    """pg_dump describes the database afterwards as it did before: owners, grants, settings, encoding, locale."""
    before = furnished.describe()
    assert "shop.motto" in before
    await furnished.succeed("create")
    await furnished.succeed("restore", "newest", "--yes")
    assert furnished.describe() == before


async def test_rights_of_a_lost_table_come_from_the_backup(furnished: Shop) -> None:
    """The others are those of the database now, also those that were changed since the backup."""
    before = furnished.describe()
    await furnished.succeed("create")
    await furnished.execute(
        "BEGIN READ WRITE; DROP TABLE user_credits CASCADE; REVOKE SELECT ON products FROM PUBLIC; COMMIT",
    )
    await furnished.succeed("restore", "newest", "--yes")
    grant = "GRANT SELECT ON TABLE public.products TO PUBLIC;\n"
    assert grant in before
    assert furnished.describe() == before.replace(grant, "")


async def test_a_new_database_gets_the_rights_of_the_backup(furnished: Shop, roles: dict[str, str]) -> None:
    """The old one is lost, and an empty one is there in its place."""
    before = furnished.describe()
    await furnished.succeed("create")
    maintenance = replace_database_name(furnished.url, "postgres")
    await execute(maintenance, f"DROP DATABASE {furnished.database} WITH (FORCE)")
    await execute(maintenance, f"CREATE DATABASE {furnished.database} TEMPLATE template0 CONNECTION LIMIT 77")
    await furnished.succeed("restore", "newest", "--yes")
    assert furnished.describe() == before


async def test_rights_of_unknown_roles_are_left_out(shop: Shop, roles: dict[str, str]) -> None:
    """Another server has other roles: what a role owned that is not there belongs to the database's owner."""
    owner, analyst, keeper = roles["owner"], roles["analyst"], roles["app"]
    await shop.execute(f"ALTER TABLE products OWNER TO {owner}", f"GRANT SELECT ON query_cache TO {owner}, {analyst}")
    await shop.succeed("create")
    maintenance = replace_database_name(shop.url, "postgres")
    await execute(maintenance, f"DROP DATABASE {shop.database} WITH (FORCE)")
    await execute(maintenance, f"ALTER ROLE {owner} RENAME TO {owner}_gone")
    await execute(maintenance, f"CREATE DATABASE {shop.database} OWNER {keeper}")
    await shop.succeed("restore", "newest", "--yes")
    found = await shop.fetch("SELECT relowner::regrole::text FROM pg_class WHERE oid = 'products'::regclass")
    assert found == keeper
    assert await shop.fetch(f"SELECT has_table_privilege('{analyst}', 'query_cache', 'SELECT')")
    await execute(maintenance, f"ALTER ROLE {owner}_gone RENAME TO {owner}")


async def test_all_privileges_of_an_older_server_are_all(shop: Shop, roles: dict[str, str]) -> None:
    """Before PostgreSQL 17 an owner with explicit grants had no MAINTAIN, without which VACUUM is refused."""
    owner, app_role = roles["owner"], roles["app"]
    await shop.execute(f"ALTER TABLE products OWNER TO {owner}", f"GRANT SELECT, INSERT ON products TO {app_role}")
    before = shop.describe()
    await shop.succeed("create")
    manifest = shop.manifest()
    assert manifest.rights
    manifest.rights.major = 15
    for one in manifest.rights.objects.values():
        one.grants = [grant for grant in one.grants if grant.privilege != "MAINTAIN"]
    write_manifest(shop.folder, manifest)
    maintenance = replace_database_name(shop.url, "postgres")
    await execute(maintenance, f"DROP DATABASE {shop.database} WITH (FORCE)")
    await execute(maintenance, f"CREATE DATABASE {shop.database} TEMPLATE template0")
    await shop.succeed("restore", "newest", "--yes")
    assert await shop.fetch(f"SELECT has_table_privilege('{owner}', 'products', 'MAINTAIN')")
    assert shop.describe() == before


async def test_encoding_and_locale_are_kept(shop: Shop) -> None:
    """A database that differs from its server's default stays as it is."""
    name = f"{shop.database}_icu"
    await shop.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin "
        "BUILTIN_LOCALE 'C' LC_COLLATE 'C' LC_CTYPE 'POSIX'"
    )
    other = Shop(replace_database_name(shop.url, name), shop.folder, shop.monkeypatch)
    await shop.succeed("create")
    query = f"""
        SELECT to_jsonb(d) - '{{oid,datname,datfrozenxid,datminmxid}}'::text[]
        FROM pg_database d WHERE datname = '{name}'
    """  # noqa: S608 - a test's own
    before = await shop.fetch(query)
    await other.succeed("restore", "newest", "--yes")
    assert await other.fetch(query) == before
    assert await other.fetch("SELECT count(*) FROM user_credits") == 1


async def test_an_administrator_lends_credentials_alone(shop: Shop) -> None:
    """Whatever database the link names, that of DATABASE_URL is replaced, and no other is touched."""
    other = f"{shop.database}_other"
    await shop.execute(f"CREATE DATABASE {other} TEMPLATE template0")
    neighbour = Shop(replace_database_name(shop.url, other), shop.folder, shop.monkeypatch)
    await neighbour.execute("CREATE TABLE precious (id int)")
    await shop.succeed("create")
    await shop.execute("DELETE FROM user_credits")
    for name in ("postgres", other):
        # The same server by another of its names: it is then recognised by asking it.
        link = replace_database_name(shop.url, name).replace("127.0.0.1", "localhost")
        await shop.succeed("verify", DATABASE_ADMIN_URL=link)
        await shop.succeed("restore", "newest", "--yes", DATABASE_ADMIN_URL=link)
        assert await shop.fetch("SELECT count(*) FROM user_credits") == 1
        assert await neighbour.fetch("SELECT to_regclass('precious') IS NOT NULL")


async def test_the_administrator_of_another_server_is_refused(shop: Shop) -> None:
    """The message names the variable, and nothing is created there."""
    await shop.succeed("create")
    with run_postgres() as stranger:
        for command in (("verify",), ("restore", "newest", "--yes")):
            said = await shop.fail(*command, DATABASE_ADMIN_URL=stranger.url)
            assert "DATABASE_ADMIN_URL leads to another server than DATABASE_URL" in said
        found = Shop(stranger.url, shop.folder, shop.monkeypatch)
        assert await found.fetch("SELECT count(*) FROM pg_database") == 4


async def test_refusals_name_the_variable(shop: Shop) -> None:
    """A wrong password is that of the link that has it."""
    await shop.succeed("create")
    wrong = normalise_dsn(shop.url).set(drivername="postgresql", password="wrong")  # noqa: S106 - a test's own
    link = wrong.render_as_string(hide_password=False)
    assert "DATABASE_MIGRATION_URL" in await shop.fail("create", DATABASE_MIGRATION_URL=link)
    for command in (("verify",), ("restore", "newest", "--yes")):
        assert "DATABASE_ADMIN_URL" in await shop.fail(*command, DATABASE_ADMIN_URL=link)
        assert "DATABASE_MIGRATION_URL" in await shop.fail(*command, DATABASE_MIGRATION_URL=link)
        assert "DATABASE_URL" in await shop.fail(*command, DATABASE_URL=link)


async def test_another_database_is_not_backed_up(shop: Shop, empty_database_url: str) -> None:
    """The owner's link must lead to the database of DATABASE_URL."""
    said = await shop.fail("create", DATABASE_MIGRATION_URL=empty_database_url)
    assert said.startswith("DATABASE_MIGRATION_URL leads to the database")
    await shop.succeed("create", DATABASE_MIGRATION_URL=shop.url.replace("127.0.0.1", "localhost"))


async def test_keys_must_be_a_pair(shop: Shop) -> None:
    """A backup for a key that the private one does not open is not made."""
    key, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    keys = {"BACKUP_RECIPIENT": str(key.to_public())}
    assert "is not the private key of BACKUP_RECIPIENT" in await shop.fail("create", **keys, BACKUP_IDENTITY=str(other))
    assert not list_backups(shop.folder)
    await shop.succeed("create", **keys, BACKUP_IDENTITY=str(key))
    await shop.succeed("verify", **keys, BACKUP_IDENTITY=str(key))


async def test_a_verification_is_noted(shop: Shop) -> None:
    """In the manifest, which stays readable for older versions."""
    await shop.succeed("create")
    before = shop.manifest()
    assert before.verified_at is None
    await shop.succeed("verify")
    after = shop.manifest()
    assert after.verified_at is not None
    assert after == before.model_copy(update={"verified_at": after.verified_at})


async def test_backups_of_older_versions_are_restored(shop: Shop) -> None:
    """Their manifests hold no rights and no version of pg_dump."""
    await shop.succeed("create")
    before = shop.describe()
    write_manifest(shop.folder, shop.manifest().model_copy(update={"rights": None, "dumped_by": 0}))
    await shop.succeed("restore", "newest", "--yes")
    assert shop.describe() == before


async def test_what_the_role_may_not_read_is_said(shop: Shop) -> None:
    """pg_dump's own last line would only repeat the statement."""
    role = f"blind_{uuid4().hex[:8]}"
    await shop.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD 'x'", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    link = normalise_dsn(shop.url).set(drivername="postgresql", username=role, password="x")  # noqa: S106 - a test's own
    try:
        said = await shop.fail("create", DATABASE_MIGRATION_URL=link.render_as_string(hide_password=False))
        assert "lack SELECT privilege on the sequence" in said
        await shop.execute(f"REVOKE SELECT ON products FROM {role}")  # noqa: S608 - no query
        said = await shop.fail("create", DATABASE_MIGRATION_URL=link.render_as_string(hide_password=False))
        assert "permission denied for table products" in said
        assert not list(shop.folder.glob("*"))
    finally:
        await shop.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_manifest_runs_no_statements_of_its_own(furnished: Shop) -> None:
    """Who can write to the folder of backups cannot make an administrator execute grants of theirs."""
    await furnished.succeed("create")
    file = get_manifest_file(furnished.folder, furnished.manifest().name)
    text = file.read_text()
    file.write_text(text.replace('"SELECT"', '"SELECT ON products TO PUBLIC; DROP TABLE query_cache; GRANT SELECT"'))
    assert text != file.read_text()
    maintenance = replace_database_name(furnished.url, "postgres")
    await execute(maintenance, f"DROP DATABASE {furnished.database} WITH (FORCE)")
    await execute(maintenance, f"CREATE DATABASE {furnished.database} TEMPLATE template0")
    await furnished.succeed("restore", "newest", "--yes")
    assert await furnished.fetch("SELECT version_num FROM alembic_version") == list_known_revisions()[-1]
    assert await furnished.fetch("SELECT to_regclass('public.query_cache') IS NOT NULL")


async def test_an_administrator_need_not_be_a_superuser(shop: Shop) -> None:
    """As at hosters: a role that may create databases and roles made the database and the roles, and restores it."""
    tag, database = uuid4().hex[:8], f"{shop.database}_hosted"
    await shop.execute(f"CREATE ROLE dba_{tag} LOGIN CREATEDB CREATEROLE PASSWORD 'x'")
    await shop.execute(f"CREATE DATABASE {database} OWNER dba_{tag} TEMPLATE template0")
    own = normalise_dsn(replace_database_name(shop.url, database)).set(drivername="postgresql", password="x")  # noqa: S106
    as_dba, as_owner, as_app = (
        own.set(username=f"{name}_{tag}").render_as_string(hide_password=False) for name in ("dba", "owner", "app")
    )
    hosted = Shop(replace_database_name(shop.url, database), shop.folder, shop.monkeypatch)
    try:
        for statement in (
            f"CREATE ROLE owner_{tag} LOGIN PASSWORD 'x'",
            f"CREATE ROLE app_{tag} LOGIN PASSWORD 'x'",
            f"GRANT owner_{tag} TO dba_{tag}",
            f"GRANT CREATE ON SCHEMA public TO owner_{tag}",
            f"GRANT CREATE ON DATABASE {database} TO owner_{tag}",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE owner_{tag} IN SCHEMA public GRANT SELECT ON TABLES TO app_{tag}",
            f"ALTER DATABASE {database} SET work_mem = '5MB'",
            f"ALTER ROLE app_{tag} IN DATABASE {database} SET lock_timeout = '3s'",
        ):
            await execute(as_dba, statement)
        await migrate.upgrade(normalise_dsn(as_owner))
        before = hosted.describe()
        links = {"DATABASE_URL": as_app, "DATABASE_MIGRATION_URL": as_owner, "DATABASE_ADMIN_URL": as_dba}
        await hosted.succeed("create", **links)
        await hosted.succeed("restore", "newest", "--yes", **links)
        assert hosted.describe() == before
    finally:
        await drop_databases(shop, f"{shop.database}_%")
        for name in ("app", "owner", "dba"):
            await shop.execute(f"DROP OWNED BY {name}_{tag}", f"DROP ROLE {name}_{tag}")


async def test_extensions_in_another_schema_come_back(shop: Shop) -> None:
    """They are restored where they were, and the product finds them there."""
    database = f"{shop.database}_extended"
    await shop.execute(f"CREATE DATABASE {database} TEMPLATE template0")
    extended = Shop(replace_database_name(shop.url, database), shop.folder, shop.monkeypatch)
    await extended.execute("CREATE SCHEMA extra", "CREATE EXTENSION pg_trgm SCHEMA extra")
    await migrate.upgrade(normalise_dsn(extended.url))
    before = extended.describe()
    await extended.succeed("create")
    await extended.succeed("restore", "newest", "--yes")
    assert extended.describe() == before


async def test_a_spoilt_backup_hides_no_other(shop: Shop) -> None:
    """`list` shows all with their state; `verify` names the damaged one and says what to do."""
    for _ in range(4):
        await shop.succeed("create")
    whole, lost, cut, damaged = list_backups(shop.folder)
    get_dump_file(shop.folder, lost).unlink()
    get_dump_file(shop.folder, cut).write_bytes(b"PGDMP")
    get_manifest_file(shop.folder, damaged).write_text("{bad\n")
    states = {whole: "whole", lost: "missing", cut: "cut off", damaged: "damaged"}
    shown = (await shop.succeed("list")).splitlines()[1:]
    assert [(line.split()[0], state) for line, state in zip(shown, states.values(), strict=True)] == [*states.items()]
    assert all(line.rstrip().endswith(state) for line, state in zip(shown, states.values(), strict=True))
    rows = json.loads(await shop.succeed("list", "--json"))
    assert {row["name"]: row["state"] for row in rows} == states
    assert [row.get("encrypted") for row in rows] == [False, False, False, None]
    said = await shop.fail("verify")
    assert damaged in said
    assert "make a new backup" in said
    assert f"{whole} is whole" in await shop.succeed("verify", whole)
