"""PostgreSQL primaries and standbys for tests that kill, freeze, fence and promote them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg

from shopassist.db.embedded.programs import (
    Binaries,
    OsAccount,
    choose_folder,
    find_binaries,
    make_runnable,
    spawn,
    stop_process,
)

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "timezone": "UTC",
    "fsync": "off",  # these tests kill processes, not the machine
    "wal_receiver_timeout": "3s",
    "wal_retrieve_retry_interval": "200ms",
}
START_SECONDS = 40.0


class Postgres:
    """One server. Its port, and so its connection string, stays the same."""

    def __init__(self, folder: Path, account: OsAccount, binaries: Binaries) -> None:
        """Choose a port. Data is stored in `folder`, without a cluster yet."""
        self.folder = folder
        self._account = account
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"postgresql://shopassist@{self.host}/postgres"

    def make(self) -> None:
        """Create an empty cluster."""
        self._run(
            "initdb",
            f"--pgdata={self.folder}",
            "--username=shopassist",
            "--auth=trust",
            "--locale=C",
            "--encoding=UTF8",
        )

    def copy(self, primary: "Postgres") -> None:
        """Copy `primary`, to follow it."""
        link = f"host=127.0.0.1 port={primary.port} user=shopassist application_name=standby_{self.port}"
        self._run("pg_basebackup", f"--dbname={link}", f"--pgdata={self.folder}", "--write-recovery-conf", "-cfast")

    def start(self, settings: Mapping[str, str] | None = None) -> "Postgres":
        """Start it and wait until it can be read. The calling thread must outlive it."""
        chosen = {**SETTINGS, "port": str(self.port), **(settings or {})}
        options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
        log = os.open(self.folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        command = [self._binaries.program("postgres"), "-D", str(self.folder), *options]
        self._process = spawn(command, self._account, output=log)
        os.close(log)
        deadline = time.monotonic() + START_SECONDS
        while self._state() not in {"ready", "standby"}:
            assert self._process.poll() is None, self.folder.with_suffix(".log").read_text()
            assert time.monotonic() < deadline, self.folder.with_suffix(".log").read_text()
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Shut it down if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            stop_process(self._process, 5)

    def kill(self) -> None:
        """Send SIGKILL to all its processes: data not yet on disk or sent is lost."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(10)

    def freeze(self) -> None:
        """Let it accept bytes without answering."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def query(self, statement: str, *arguments: object) -> object:
        """Return the first value of a statement."""
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def set(self, name: str, value: str) -> None:
        """Change a setting of the running server."""
        await self.query(f"ALTER SYSTEM SET {name} = '{value}'")
        await self.query("SELECT pg_reload_conf()")

    async def promote(self) -> None:
        """Promote it."""
        assert await self.query("SELECT pg_promote(true, 30)")

    def _state(self) -> str:
        with suppress(FileNotFoundError):
            lines = (self.folder / "postmaster.pid").read_text().splitlines()
            assert self._process is not None
            if len(lines) > 7 and int(lines[0]) == self._process.pid:
                return lines[7].strip()
        return ""

    def _pids(self) -> list[int]:
        if self._process is None or self._process.poll() is not None:
            return []
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._binaries.program(program), *arguments]
        with spawn(command, self._account, output=subprocess.PIPE) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, said.decode()


class Cluster:
    """A primary and the standbys copied from it."""

    def __init__(self, folder: Path) -> None:
        """Prepare a cluster. `folder` must be accessible to other accounts."""
        self._folder, self._account = choose_folder(folder)
        self._account.give(folder)
        self._binaries = make_runnable(self._account, find_binaries())
        self.servers: list[Postgres] = []
        self.primary = self._server()
        self.primary.make()
        self.primary.start()

    def standby(self, settings: Mapping[str, str] | None = None) -> Postgres:
        """Start a standby of the primary."""
        server = self._server()
        server.copy(self.primary)
        return server.start(settings)

    def link(self, *servers: Postgres) -> str:
        """Return a connection string with several servers."""
        return f"postgresql://shopassist@{','.join(server.host for server in servers)}/postgres"

    def _server(self) -> Postgres:
        server = Postgres(self._folder / f"server-{len(self.servers)}", self._account, self._binaries)
        self.servers.append(server)
        return server


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Run a primary for the length of the block; stop it and its standbys behind it."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-cluster-"))
    folder.chmod(0o711)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        for server in cluster.servers:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
