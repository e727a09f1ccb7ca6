"""Backups with the settings of compose.yaml; its addresses lead to a server of the test."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from shopassist.cli import app
from tests.support.backups import Shop
from tests.support.compose import compose, interpolate
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import execute, replace_database_name
from tests.support.scale import VARIABLES

ADDRESSES = re.compile(r"@[a-z0-9:,]+/")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Start the server of the service `database`, with the password of its administrator."""
    with run_postgres() as server:
        password = VARIABLES["POSTGRES_PASSWORD"]
        asyncio.run(execute(server.url, f"ALTER ROLE shopassist PASSWORD '{password}'"))
        server.url = re.sub(r":[^:@]+@", f":{password}@", server.url)
        yield server


def get_environment(service: str, server: PostgresServer, folder: Path) -> dict[str, str]:
    """Return the environment of a service, with the test's addresses and folder of backups."""
    given = compose()["services"][service]["environment"]
    environment = {name: interpolate(str(value), VARIABLES) for name, value in given.items() if value is not None}
    environment = {name: ADDRESSES.sub(f"@127.0.0.1:{server.port}/", value) for name, value in environment.items()}
    return {**environment, "BACKUP_FOLDER": str(folder)} if "BACKUP_FOLDER" in environment else environment


async def run(monkeypatch: pytest.MonkeyPatch, command: list[str], **environment: str) -> None:
    """Run a command, which must succeed."""
    with monkeypatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert result.exit_code == 0, result.exception or result.output


async def test_create_verify_and_restore(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app creates backups as the owner; `docker compose run --rm backup` does the rest. Rights are kept."""
    folder = tmp_path / "backups"
    as_app, as_backup = (get_environment(name, server, folder) for name in ("app", "backup"))
    provisioning = {**get_environment("provision", server, folder), "DATABASE_URL": server.url}
    await run(monkeypatch, ["db", "upgrade"], **provisioning)
    await run(monkeypatch, ["db", "provision"], **provisioning)
    shop = Shop(server.url, folder, monkeypatch)
    await shop.execute("CREATE TABLE alien (id int)")  # no role of the product's may read it
    assert "permission denied for table alien" in await shop.fail("create", **as_app)
    await shop.execute("DROP TABLE alien")
    before = shop.describe()
    await shop.succeed("create", **as_app)
    assert "DATABASE_ADMIN_URL" in await shop.fail("verify", **as_app)
    await shop.succeed("create", **as_backup)
    await shop.succeed("verify", **as_backup)
    await shop.execute("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    await shop.succeed("restore", "newest", "--yes", **as_backup)
    connection = await asyncpg.connect(as_app["DATABASE_URL"])
    assert await connection.fetchval("SELECT count(*) FROM products") == 0
    await connection.close()
    assert shop.describe() == before

    # On another server with other roles, which are provisioned first, these get the rights.
    names = {f"DB_{kind}_ROLE": f"other_{kind.lower()}" for kind in ("OWNER", "APP", "READ")}
    as_administrator = {"DATABASE_URL": server.url, "DATABASE_ADMIN_URL": server.url, **names}
    maintenance = replace_database_name(server.url, "postgres")
    await execute(maintenance, "DROP DATABASE shopassist WITH (FORCE)")
    for kind in ("owner", "app", "read"):
        await execute(maintenance, f"ALTER ROLE shopassist_{kind} RENAME TO gone_{kind}")
    await execute(maintenance, "CREATE DATABASE shopassist TEMPLATE template0")
    await run(monkeypatch, ["db", "provision"], **{**provisioning, **names})
    await shop.succeed("restore", "newest", "--yes", **as_administrator)
    for privilege in ("SELECT", "INSERT"):
        assert await shop.fetch(f"SELECT has_table_privilege('other_app', 'user_credits', '{privilege}')")
    owner = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'user_credits'::regclass"
    assert await shop.fetch(owner) == "other_owner"
