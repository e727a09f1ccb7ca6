"""PostgreSQL on a disk of 200 MB that fills up."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from tests.faults.conftest import SETTINGS, Trials
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import execute, replace_database_name

pytestmark = [pytest.mark.faults, pytest.mark.external]

SECONDS = 4
CHUNK = bytes(1 << 16)
SMALL = {"max_wal_size": "64MB", "min_wal_size": "32MB"}


@pytest.fixture
def disk() -> Iterator[Path]:
    """Create a small disk."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = Path(tempfile.mkdtemp(prefix="shopassist-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m,mode=1777", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@pytest.fixture
def postgres_server(disk: Path, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """Start a server with its write-ahead log, or only its tables, on the disk."""
    with run_postgres(disk if request.param == "log" else None, **SETTINGS, **SMALL) as server:
        yield server


@pytest.fixture
async def database(postgres_server: PostgresServer, disk: Path) -> AsyncIterator[str]:
    """Create a migrated database with its tables on the disk."""
    tables, cluster = disk / "tables", next(postgres_server.data_directory.rglob("PG_VERSION")).parent
    tables.mkdir(mode=0o700)
    os.chown(tables, cluster.stat().st_uid, cluster.stat().st_gid)
    await execute(postgres_server.url, f"CREATE TABLESPACE small LOCATION '{tables}'")
    await execute(postgres_server.url, "CREATE DATABASE shop TABLESPACE small")
    await migrate.upgrade(normalise_dsn(replace_database_name(postgres_server.url, "shop")))
    yield replace_database_name(postgres_server.url, "shop")
    await execute(postgres_server.url, "DROP DATABASE shop WITH (FORCE)")
    await execute(postgres_server.url, "DROP TABLESPACE small")


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk for the length of the block."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(CHUNK)
    try:
        yield
    finally:
        ballast.unlink()


@pytest.mark.parametrize("postgres_server", ["tables"], indirect=True)
async def test_no_room_for_rows(trial: Trials, disk: Path) -> None:
    """53100: statements that need space are refused and all others served; with free space everything works again."""
    async with trial(f"no room for tables for {SECONDS} s") as shop:
        with shop.fault(), full(disk):
            await asyncio.sleep(SECONDS)
        assert any(one.failed for one in shop.during())


@pytest.mark.parametrize("postgres_server", ["log"], indirect=True)
async def test_no_room_for_the_log(trial: Trials, postgres_server: PostgresServer, disk: Path) -> None:
    """PostgreSQL stops; restarted with free space, it has every acknowledged write."""
    async with trial("no room for the log, PostgreSQL stopped") as shop:
        with shop.fault():
            with full(disk):
                await write_until_it_stops(postgres_server)
                await asyncio.sleep(1)
                await asyncio.to_thread(postgres_server.stop)
            await asyncio.to_thread(postgres_server.start)
    assert "PANIC" in (postgres_server.data_directory / "postgresql.log").read_text()


async def write_until_it_stops(server: PostgresServer) -> None:
    """Use up the space reserved for the log."""
    with suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
        while True:
            with suppress(asyncpg.DiskFullError):
                await execute(server.url, "SELECT pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
            with suppress(asyncpg.DiskFullError):
                await execute(server.url, "SELECT pg_switch_wal()")
