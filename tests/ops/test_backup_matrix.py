"""Backups of Debian's PostgreSQL 15 with and without TLS: each is created, verified and restored.

The other tests of backups run on the embedded PostgreSQL 18, which has no TLS. `docs/backups.md` has the whole matrix.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.errors import BackupError
from shopassist.ops import dumps
from tests.support.backups import Shop
from tests.support.certificates import Authority
from tests.support.helpers import execute, replace_database_name
from tests.support.pgbouncer import SETTINGS, run_pgbouncer
from tests.support.secure_server import SecureServer, run_secure_server
from tests.support.servers import PROJECT

pytestmark = pytest.mark.external

ACCOUNT = """
INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
VALUES ('auth0|1', false, 0, 50, now())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[SecureServer]:
    """Start a server of Debian's package."""
    with run_secure_server() as server:
        yield server


@pytest.fixture
async def shop(server: SecureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Return a shop with an account on that server."""
    await execute(server.url, "DROP DATABASE IF EXISTS shop WITH (FORCE)")
    locale = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
    await execute(server.url, f"CREATE DATABASE shop TEMPLATE template0 ENCODING UTF8 {locale}")
    shop = Shop(replace_database_name(server.url, "shop"), tmp_path / "backups", monkeypatch)
    await migrate.upgrade(normalise_dsn(shop.url))
    await shop.execute(ACCOUNT)
    return shop


@pytest.mark.parametrize("mode", ["disable", None, "require", "verify-full"])
async def test_create_verify_restore(server: SecureServer, shop: Shop, mode: str | None) -> None:
    """Nothing is lost, and owners, grants, settings and locale are what they were."""
    role = f"manager_{mode or 'default'}".replace("-", "_")
    await shop.execute(
        f"DROP ROLE IF EXISTS {role}",
        f"CREATE ROLE {role}",
        f"ALTER TABLE products OWNER TO {role}",
        f"GRANT SELECT (user_id) ON user_credits TO {role}",
        "ALTER DATABASE shop SET work_mem = '5MB'",
        f"ALTER DATABASE shop OWNER TO {role}",
    )
    before = shop.describe()
    environment = {"DATABASE_ADMIN_URL": replace_database_name(server.url, "postgres")}
    if mode:
        environment["DB_SSL_MODE"] = mode
    if mode == "verify-full":
        environment["DB_SSL_ROOT_CERT"] = server.root()
    await shop.succeed("create", **environment)
    assert shop.manifest().dumped_by == shop.manifest().server_version // 10000 == 15
    await shop.succeed("verify", **environment)
    await shop.execute("DELETE FROM user_credits")
    await shop.succeed("restore", "newest", "--yes", **environment)
    assert await shop.fetch("SELECT count(*) FROM user_credits") == 1
    assert shop.describe() == before


async def test_tls_is_verified(server: SecureServer, shop: Shop) -> None:
    """The programs refuse a server that another authority vouches for; here only they are asked to verify."""
    link = f"{shop.url}?sslmode=verify-full&sslrootcert={server.root('stranger.crt')}"
    programs = dumps.find_programs(normalise_dsn(link), 15)
    with pytest.raises(BackupError, match="certificate verify failed"):
        dumps.write_dump(normalise_dsn(link), programs, "", shop.folder / "x.dump", None)


async def test_what_could_not_be_restored_is_not_created(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedded programs could dump this server, and not restore what they dumped."""
    monkeypatch.setattr(dumps, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = await shop.fail("create")
    assert "The server is PostgreSQL 15: dumping and restoring needs pg_dump and pg_restore of version 15 to 16" in said
    assert not list(shop.folder.glob("*"))


async def test_a_backup_of_an_older_version_says_why_it_cannot_be_restored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions before dumped this server with the embedded pg_dump 18."""
    find_programs = dumps.find_programs
    monkeypatch.setattr("shopassist.ops.backups.find_programs", lambda url, _: find_programs(url, 18))
    await shop.succeed("create")
    monkeypatch.setattr("shopassist.ops.backups.find_programs", find_programs)
    assert "pg_dump 18 wrote this backup: it can be restored on PostgreSQL 17 or later" in await shop.fail("verify")
    file = shop.folder / f"{shop.manifest().name}.json"
    file.write_text(
        file.read_text().replace('"dumped_by": 18', '"dumped_by": 0').replace('"dumped_by":18', '"dumped_by":0')
    )
    assert "unsupported version (1.16) in file header: pg_dump 16 or later wrote it" in await shop.fail("verify")


def get_sidecar_template() -> str:
    """Return the sidecar's settings with the test's addresses and folder."""
    text = (PROJECT / "deploy/backup/pgbouncer.ini").read_text()
    for documented, own in (
        ("host=db.example port=5432", "host={host} port={port}"),
        ("listen_port = 5433", "listen_port = {own_port}"),
        ("/etc/pgbouncer/", "{folder}/"),
    ):
        assert documented in text
        text = text.replace(documented, own)
    return text


async def back_up_through(shop: Shop, url: str, authority: Authority) -> None:
    """Create, verify and restore a backup through the sidecar to the server of `url`."""
    link = normalise_dsn(shop.url)
    users = {str(link.username): str(link.password)}
    with run_pgbouncer(url, users, get_sidecar_template(), {"ca.crt": authority.pem}) as through:
        administrator = replace_database_name(through, "postgres")
        environment = {"DATABASE_URL": through, "DATABASE_ADMIN_URL": administrator, "DB_SSL_MODE": "disable"}
        await shop.succeed("create", **environment)
        await shop.succeed("verify", **environment)
        await shop.execute("DELETE FROM user_credits")
        await shop.succeed("restore", "newest", "--yes", **environment)
    assert await shop.fetch("SELECT count(*) FROM user_credits") == 1


async def test_the_sidecar_leads_over_tls(server: SecureServer, shop: Shop) -> None:
    """Programs without TLS back up a server that refuses connections without it; the sidecar knows it by its name."""
    [rules] = server.folder.rglob("pg_hba.conf")
    before = rules.read_text()
    rules.write_text(before.replace("host ", "hostssl "))
    await execute(server.url, "SELECT pg_reload_conf()")
    try:
        assert "a way without TLS" in await shop.fail("create", DB_SSL_MODE="disable")
        await back_up_through(shop, shop.url, server.authority)
        with pytest.raises(AssertionError, match=r"refuses|cannot be reached"):
            await back_up_through(shop, shop.url, server.stranger)
    finally:
        rules.write_text(before)
        await execute(server.url, "SELECT pg_reload_conf()")


async def test_a_pooler_is_bypassed(shop: Shop) -> None:
    """DATABASE_URL leads to PgBouncer, and the administrator's link to the server behind it, which is recognised."""
    link = normalise_dsn(shop.url)
    with run_pgbouncer(shop.url, {str(link.username): str(link.password)}) as pooled:
        environment = {
            "DATABASE_URL": pooled,
            "DB_POOL_MODE": "transaction",
            "DATABASE_DIRECT_URL": shop.url,
            "DATABASE_ADMIN_URL": replace_database_name(shop.url, "postgres"),
        }
        await shop.succeed("create", **environment)
        await shop.succeed("verify", **environment)
        await shop.succeed("restore", "newest", "--yes", **environment)
    assert await shop.fetch("SELECT count(*) FROM user_credits") == 1


SECURE_FRONT = f"""{SETTINGS}
client_tls_sslmode = require
client_tls_cert_file = {{folder}}/server.crt
client_tls_key_file = {{folder}}/server.key
""".replace("pool_mode = transaction", "pool_mode = session\nserver_lifetime = 0")


async def test_the_sidecar_serves_the_embedded_programs(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a PostgreSQL 18 behind a PgBouncer that speaks TLS: no PostgreSQL 18 with TLS of its own is at hand."""
    authority = Authority("Authority")
    certificate, key = authority.issue("127.0.0.1")
    link = normalise_dsn(database_url)
    users, files = {str(link.username): str(link.password)}, {"server.crt": certificate, "server.key": key}
    shop = Shop(database_url, tmp_path / "backups", monkeypatch)
    await shop.execute(ACCOUNT)
    with run_pgbouncer(database_url, users, SECURE_FRONT, files) as front:
        await back_up_through(shop, front, authority)
    [old] = await list_databases(shop)
    await execute(replace_database_name(database_url, "postgres"), f'DROP DATABASE "{old}"')


async def list_databases(shop: Shop) -> list[str]:
    """Return the databases that restores replaced."""
    names = await shop.fetch(f"SELECT array_agg(datname::text) FROM pg_database WHERE datname LIKE '{shop.database}_%'")  # noqa: S608
    assert isinstance(names, list)
    return names
