"""PostgreSQL servers for tests that stop, kill or freeze them."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shopassist.db.embedded.server import EmbeddedPostgres


class PostgresServer:
    """A server that a test starts, stops, kills and freezes; its connection string stays the same."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Choose a port. Data is stored in `folder`; `settings` are PostgreSQL's."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        chosen = {"fsync": "off", **settings, "port": str(self.port)}
        self._server = EmbeddedPostgres(folder / "data", settings=chosen)
        self.url = ""

    @property
    def data_directory(self) -> Path:
        """Return the data folder that the server uses."""
        return self._server.data_directory

    def start(self) -> "PostgresServer":
        """Start it."""
        chosen = self._server.start()
        host, _, name = chosen.rpartition(":")
        self.url = f"{host}:{self.port}/{name.partition('/')[2]}"
        return self

    def logs(self) -> list[Path]:
        """Return the server's log files."""
        return list(self._server.data_directory.rglob("*.log"))

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()

    def kill(self) -> None:
        """Send SIGKILL to the server and all its children at once."""
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Send SIGSTOP to all its processes for the length of the block: connections stay open without answers."""
        stopped = self._processes()
        for pid in stopped:
            with suppress(ProcessLookupError):  # a background worker may just have ended
                os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _processes(self) -> list[int]:
        """Return the process ids of the server and its children."""
        [pid, *_] = next(self.data_directory.rglob("postmaster.pid")).read_text().split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(pid), *map(int, children)]


@contextmanager
def run_postgres(folder: Path | None = None, /, **settings: str) -> Iterator[PostgresServer]:
    """Run a server for the length of the block, with its data below `folder` if given."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-own-", dir=folder))
    folder.chmod(0o711)
    server = PostgresServer(folder, **settings)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
