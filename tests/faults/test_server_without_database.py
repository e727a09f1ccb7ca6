"""Servers with a database that never starts, starts late or disappears; and a server that is stopped while it works."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from containers import Container
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import postgres_settings
from tests.support.servers import PROJECT, TestServer

pytestmark = pytest.mark.faults

CROWD = 50


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """Start a server that these tests share; each test leaves it running."""
    with run_postgres() as database:
        yield database


def served(folder: Path, url: str, **environment: str) -> tuple[subprocess.Popen[bytes], Path, str]:
    """Start `shopassist serve`; return the process, its log file and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    log = folder / "said"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "shopassist", "serve"],
            env={**os.environ, "PYTHONPATH": str(PROJECT), "DATABASE_URL": url, "API_PORT": port, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    return process, log, port


def is_healthy(port: str) -> bool:
    """Return whether the server answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_database_that_never_comes_back_ends_the_server(
    tmp_path: Path, database: PostgresServer, workers: str
) -> None:
    """It exits by itself with 1, with any number of workers, and its last line has the reason."""
    process, log, port = served(tmp_path, database.url, WORKERS=workers, DB_FATAL_AFTER_SECONDS="1")
    try:
        deadline = time.monotonic() + 30
        while not is_healthy(port):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        time.sleep(0 if workers == "1" else 1)  # until the last worker has started, too
        database.stop()
        assert process.wait(15) == 1, log.read_text()
    finally:
        process.kill()
        process.wait()
        database.start()
    assert "DB_FATAL_AFTER_SECONDS" in log.read_text().splitlines()[-1]
    assert "Traceback" not in log.read_text()


def test_a_server_may_start_before_its_database(tmp_path: Path, database: PostgresServer) -> None:
    """It is alive but not ready and refuses with 503; when the database appears it is migrated and filled."""
    url = database.url.rpartition("/")[0] + "/late"
    admin = database.url
    database.stop()
    server = TestServer(tmp_path, url, START_DEGRADED="true", SAMPLE_CATALOGUE="true")
    try:
        server.wait_until_ready()
        assert server.call("GET", "/health/ready")[:2] == (503, {"status": "starting"})
        assert server.ask("phone", "guest")[0] == 503
        database.start()
        asyncio.run(create(admin, "late"))
        deadline = time.monotonic() + 10
        while server.call("GET", "/health/ready")[0] != 200:
            assert time.monotonic() < deadline, server.log.read_text()
            assert server.ask("phone", "guest")[0] in {200, 503}
            time.sleep(0.05)
        assert server.ask("another phone", "other")[1]["metadata"]["charged"] == 1
        assert server.stop() == 0
    finally:
        server.kill()
        database.start()


async def create(url: str, name: str) -> None:
    """Create a database."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


async def test_told_to_stop_at_work_everybody_is_answered(tmp_path: Path, database_url: str) -> None:
    """Of 50 questions in progress those that end soon are paid for, the others cost nothing; the exit code is 0."""
    server = await asyncio.to_thread(TestServer(tmp_path, database_url).wait_until_ready)
    answers: dict[int, tuple[int, int]] = {}

    def ask(number: int) -> None:
        seconds = 2 if number % 2 else 20
        status, body, _ = server.ask(f"slow {seconds} phone {number}", f"guest-{number}")
        answers[number] = (status, body["metadata"]["charged"])

    threads = [threading.Thread(target=ask, args=[number]) for number in range(CROWD)]
    try:
        for thread in threads:
            thread.start()
        connection = await asyncpg.connect(database_url)
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT count(*) FROM credit_holds") < CROWD:
                await asyncio.sleep(0.02)
        began = time.monotonic()
        server.process.terminate()
        await asyncio.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            server.call("GET", "/health")
        assert await asyncio.to_thread(server.process.wait, 12) == 0
        assert time.monotonic() - began < 10
        for thread in threads:
            await asyncio.to_thread(thread.join, 5)
        assert answers == {number: (200, number % 2) for number in range(CROWD)}
        assert await connection.fetchval("SELECT count(*) FROM credit_holds") == 0
        spent = "SELECT sum(available_credits), sum(held_credits) FROM user_credits"
        assert tuple(await connection.fetchrow(spent)) == (CROWD * 10 - CROWD // 2, 0)
        await connection.close()
    finally:
        server.kill()
    container = Container(settings=postgres_settings(database_url))
    try:
        report = await container.ledger_reconciliation().verify()
        assert report is not None
        assert (report.accounts, report.drifting_accounts) == (CROWD, 0)
    finally:
        await container.shutdown()
