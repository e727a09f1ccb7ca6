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
from tests.support.databases import OwnPostgres, own_postgres
from tests.support.helpers import execute, with_name

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
def faulty(disk: Path, request: pytest.FixtureRequest) -> Iterator[OwnPostgres]:
    """Start a server with its write-ahead log, or only its tables, on the disk."""
    with own_postgres(disk if request.param == "log" else None, **SETTINGS, **SMALL) as server:
        yield server


@pytest.fixture
async def database(faulty: OwnPostgres, disk: Path) -> AsyncIterator[str]:
    """Create a migrated database with its tables on the disk."""
    tables, cluster = disk / "tables", next(faulty.data_directory.rglob("PG_VERSION")).parent
    tables.mkdir(mode=0o700)
    os.chown(tables, cluster.stat().st_uid, cluster.stat().st_gid)
    await execute(faulty.url, f"CREATE TABLESPACE small LOCATION '{tables}'")
    await execute(faulty.url, "CREATE DATABASE shop TABLESPACE small")
    await migrate.upgrade(normalise_dsn(with_name(faulty.url, "shop")))
    yield with_name(faulty.url, "shop")
    await execute(faulty.url, "DROP DATABASE shop WITH (FORCE)")
    await execute(faulty.url, "DROP TABLESPACE small")


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


@pytest.mark.parametrize("faulty", ["tables"], indirect=True)
async def test_no_room_for_rows(trial: Trials, disk: Path) -> None:
    """53100: statements that need space are refused and all others served; with free space everything works again."""
    async with trial(f"no room for tables for {SECONDS} s") as shop:
        with shop.fault(), full(disk):
            await asyncio.sleep(SECONDS)
        assert any(one.failed for one in shop.during())


@pytest.mark.parametrize("faulty", ["log"], indirect=True)
async def test_no_room_for_the_log(trial: Trials, faulty: OwnPostgres, disk: Path) -> None:
    """PostgreSQL stops; restarted with free space, it has every acknowledged write."""
    async with trial("no room for the log, PostgreSQL stopped") as shop:
        with shop.fault():
            with full(disk):
                await write_until_it_stops(faulty)
                await asyncio.sleep(1)
                await asyncio.to_thread(faulty.stop)
            await asyncio.to_thread(faulty.start)
    assert "PANIC" in (faulty.data_directory / "postgresql.log").read_text()


async def write_until_it_stops(server: OwnPostgres) -> None:
    """Use up the space reserved for the log."""
    with suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
        while True:
            with suppress(asyncpg.DiskFullError):
                await execute(server.url, "SELECT pg_logical_emit_message(true, 'filler', repeat('x', 100000))")
            with suppress(asyncpg.DiskFullError):
                await execute(server.url, "SELECT pg_switch_wal()")
