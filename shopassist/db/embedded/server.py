"""Starts, shares, watches, restarts and stops the embedded server."""

import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path

import structlog

from shopassist.db.embedded.binaries import Binaries, choose_folder, find_binaries, make_runnable
from shopassist.db.embedded.folder import HOST, DataFolder, OwnerLock
from shopassist.db.embedded.process import find_postmaster, find_reused_pid, spawn, stop_process
from shopassist.errors import StartupError

_SERVER_SETTINGS = {
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
_READY_POLL_SECONDS = 0.005
_READY_SECONDS = 60.0
_ABORT_SECONDS = 10.0
# The remains of a server that just died, and a port that is taken for a moment.
_TRANSIENT_ERRORS = ("already exists", "shared memory block", "could not create any TCP/IP sockets")
_TRANSIENT_SECONDS, _TRANSIENT_PAUSE_SECONDS = 10.0, 0.1


class Launcher:
    """Starts servers on a folder. The caller holds the owner's lock; `stopping` breaks off a start."""

    def __init__(self, folder: DataFolder, settings: Mapping[str, str], stopping: threading.Event) -> None:
        """`settings` are PostgreSQL's, on top of ours."""
        self._folder = folder
        self._settings = {**_SERVER_SETTINGS, **settings}
        self._stopping = stopping

    @cached_property
    def binaries(self) -> Binaries:
        """The programs, where the account can run them. Raises StartupError or OSError."""
        return make_runnable(self._folder.account, find_binaries())

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
            passing = any(words in complaint for words in _TRANSIENT_ERRORS)
            if not passing or time.monotonic() - begun > _TRANSIENT_SECONDS:
                raise StartupError(
                    f"PostgreSQL cannot start on {self._folder.cluster}: {complaint}; see {self._folder.log}."
                )
            time.sleep(_TRANSIENT_PAUSE_SECONDS)

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [self.binaries.program("postgres"), "-D", str(self._folder.cluster), "-p", str(port), *settings]
        stale = find_reused_pid(self._folder.cluster)
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
            if self._stopping.is_set() or time.monotonic() - begun > _READY_SECONDS:
                stop_process(process, _ABORT_SECONDS)
            time.sleep(_READY_POLL_SECONDS)
        return False


_CHECK_SECONDS = 0.25
_WAIT_SECONDS = 0.005
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# How long a server whose owner has just died may take to notice. One that stays was started by hand.
_ORPHAN_SECONDS = 2.0
_MAX_RESTARTS, _RESTARTS_SECONDS = 3, 60.0


class EmbeddedPostgres:
    """A PostgreSQL of our own on 127.0.0.1, shared by all processes that use the same data folder.

    Who takes the owner's lock starts the server and stops it. The others use it, and when lock and server are gone
    the first to notice becomes the owner. All this happens in one thread that lives as long as the process, since
    on Linux the server is told to stop when the *thread* that started it ends: so it goes down with us even after
    SIGKILL, and `start` may be called from any thread.
    """

    def __init__(self, data_directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are further ones of PostgreSQL. Raises StartupError when the folder cannot be served."""
        root, account = choose_folder(data_directory)
        self._folder = DataFolder(root, account)
        self._stopping = threading.Event()
        self._launcher = Launcher(self._folder, settings or {}, self._stopping)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: OwnerLock | None = None
        self._port: int | None = None
        self._url: str | None = None
        self._restarts: deque[float] = deque(maxlen=_MAX_RESTARTS)
        self._thread: threading.Thread | None = None

    @property
    def data_directory(self) -> Path:
        """The folder really used: below `/var/lib/shopassist` where PostgreSQL could not enter the given one."""
        return self._folder.root

    @property
    def url(self) -> str:
        """The DSN, with the password. Raises RuntimeError before `start`."""
        if self._url is None:
            raise RuntimeError("The embedded PostgreSQL has not been started.")
        return self._url

    def start(self) -> str:
        """Start the server, or find the one that runs, and return its DSN once it accepts connections.

        Raises StartupError.
        """
        if self._thread and self._thread.is_alive():
            return self.url
        self._stopping.clear()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="postgresql", daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server if it is ours, and stop looking after it. Takes up to 30 seconds."""
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def _run(self, started: Future[None]) -> None:
        try:
            try:
                self._port = self._find_or_start()
                self._url = self._folder.url(self._port)
            except OSError as error:
                raise StartupError(
                    f"The data folder {self._folder.root} cannot be used as {self._folder.account.name}: "
                    f"{error.strerror or 'input or output failed'} ({error.filename or self._folder.cluster}); "
                    "make it readable and writable, free space, or set SHOPASSIST_DATA to another folder."
                ) from error
            started.set_result(None)
            while not self._stopping.wait(_CHECK_SECONDS):
                self._look_after_safely()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._let_go()

    def _find_or_start(self) -> int:
        self._folder.account.make_folder(self._folder.root)
        self._lock = OwnerLock(self._folder)
        begun = time.monotonic()
        while not self._stopping.is_set():
            mine = self._lock.take()
            server = find_postmaster(self._folder.cluster)
            waited = time.monotonic() - begun
            if mine and server is None:
                self._folder.ensure_cluster(self._launcher.binaries)
                self._process, port = self._launcher.launch(None)
                return port
            if server and server.ready and (not mine or waited > _ORPHAN_SECONDS):
                return server.port
            if waited > _START_SECONDS:
                break
            time.sleep(_WAIT_SECONDS)
        raise StartupError(
            f"Another process has been starting or stopping the PostgreSQL of {self._folder.root} for too long: "
            f"end it, or see {self._folder.log}."
        )

    def _look_after_safely(self) -> None:
        try:
            self._look_after()
        except Exception:  # noqa: BLE001 - the server would go down with this thread
            structlog.get_logger(__name__).error("embedded_postgresql_restart_failed")

    def _look_after(self) -> None:
        if not self._lock or not self._lock.take():
            return
        self._folder.bound_log()
        if self._process.poll() is None if self._process else find_postmaster(self._folder.cluster):
            return
        now = time.monotonic()
        if len(self._restarts) == _MAX_RESTARTS and now - self._restarts[0] < _RESTARTS_SECONDS:
            return
        self._restarts.append(now)
        self._process, _ = self._launcher.launch(self._port)
        structlog.get_logger(__name__).warning("embedded_postgresql_restarted")

    def _let_go(self) -> None:
        if self._process and self._process.poll() is None:
            stop_process(self._process, _STOP_SECONDS)
        self._process = None
        if self._lock:
            self._lock.close()
        self._lock = None
