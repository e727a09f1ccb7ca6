"""Redis servers for tests that kill, freeze and restart them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from shopassist.db.embedded.programs import choose_folder, spawn

PROGRAM = Path("/usr/bin/redis-server")
PASSWORD = "redis-password"  # noqa: S105 - for the servers of one test


class RedisServer:
    """A server without persistence. Its port, and so its URL, stays the same."""

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        """Choose a port. `folder` gets the log and must be accessible to other accounts.

        `arguments` are Redis' own; `{port}` in them is replaced.
        """
        assert PROGRAM.exists(), "install the package redis-server: make tools"
        self._folder, self._account = choose_folder(folder)
        self._account.give(folder)
        self._arguments = arguments
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RedisServer":
        """Start it, empty, and wait until it listens."""
        output = os.open(self._folder / "redis.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        chosen = ["--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD, "--save", ""]
        command = [
            str(PROGRAM),
            *chosen,
            "--dir",
            str(self._folder),
            *(argument.format(port=self.port) for argument in self._arguments),
        ]
        self._process = spawn(command, self._account, output=output)
        os.close(output)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, (self._folder / "redis.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return self

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Send SIGSTOP for the length of the block: connections are accepted without answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self.kill()


@contextmanager
def run_redis(arguments: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run a server for the length of the block."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-redis-"))
    folder.chmod(0o711)
    server = RedisServer(folder, arguments)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
