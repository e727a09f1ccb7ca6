"""Bringing one server up."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping
from functools import cached_property

from shopassist.db.embedded.binaries import Binaries, find_binaries, readable_by
from shopassist.db.embedded.folder import HOST, Folder
from shopassist.db.embedded.postmaster import find_postmaster, reused_pid
from shopassist.db.embedded.process import end, spawn
from shopassist.errors import StartupError

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # What people asked and who they are stays out of the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
_POLL_SECONDS = 0.005
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# The remains of a server that just died, and a port that is taken for a moment.
_PASSING_TROUBLE = ("already exists", "shared memory block", "could not create any TCP/IP sockets")
_PASSING_SECONDS, _PASSING_PAUSE_SECONDS = 10.0, 0.1


class Launcher:
    """Starts servers on a folder. The caller holds the owner's lock; `stopping` breaks off a start."""

    def __init__(self, folder: Folder, settings: Mapping[str, str], stopping: threading.Event) -> None:
        """`settings` are PostgreSQL's, on top of ours."""
        self._folder = folder
        self._settings = {**_SETTINGS, **settings}
        self._stopping = stopping

    @cached_property
    def binaries(self) -> Binaries:
        """The programs, where the account can run them. Raises StartupError or OSError."""
        return readable_by(self._folder.account, find_binaries())

    def launch(self, port: int | None) -> tuple[subprocess.Popen[bytes], int]:
        """Start a server on the port, or on one of its choice, and return it with its port once it accepts connections.

        Raises StartupError with PostgreSQL's own reason, or OSError.
        """
        begun = time.monotonic()
        while True:
            chosen = port or self._folder.choose_port()
            self._folder.bound_log()
            written = self._folder.log.stat().st_size if self._folder.log.exists() else 0
            process = self._spawn(chosen)
            if self._becomes_ready(process):
                return process, chosen
            if self._stopping.is_set():
                raise StartupError("PostgreSQL was told to stop while it was starting.")
            complaint = self._folder.complaint(written)
            passing = any(words in complaint for words in _PASSING_TROUBLE)
            if not passing or time.monotonic() - begun > _PASSING_SECONDS:
                raise StartupError(
                    f"PostgreSQL cannot start on {self._folder.cluster}: {complaint}; see {self._folder.log}."
                )
            time.sleep(_PASSING_PAUSE_SECONDS)

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [self.binaries.program("postgres"), "-D", str(self._folder.cluster), "-p", str(port), *settings]
        stale = reused_pid(self._folder.cluster)
        log = self._folder.open_log()
        try:
            return spawn(
                command,
                self._folder.account,
                output=log,
                # A process that PostgreSQL takes for its grandparent is not mistaken for a server that still runs.
                environment={"PG_GRANDPARENT_PID": str(stale)} if stale else {},
            )
        finally:
            os.close(log)

    def _becomes_ready(self, process: subprocess.Popen[bytes]) -> bool:
        begun = time.monotonic()
        while process.poll() is None:
            server = find_postmaster(self._folder.cluster)
            if server and server.ready and server.pid == process.pid:
                return True
            if self._stopping.is_set() or time.monotonic() - begun > _START_SECONDS:
                end(process, _STOP_SECONDS)
            time.sleep(_POLL_SECONDS)
        return False
