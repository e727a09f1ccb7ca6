"""Starts, shares, supervises and stops the embedded server."""

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
    # Keep personal data out of the log.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
_READY_POLL_SECONDS = 0.005
_READY_SECONDS = 60.0
_ABORT_SECONDS = 10.0
# Left-overs of a server that has just died, and a port that is briefly in use.
_TRANSIENT_ERRORS = ("already exists", "shared memory block", "could not create any TCP/IP sockets")
_TRANSIENT_SECONDS, _TRANSIENT_PAUSE_SECONDS = 10.0, 0.1


class Launcher:
    """Starts servers on a folder. The caller must hold the owner's lock; `stopping` aborts a start."""

    def __init__(self, folder: DataFolder, settings: Mapping[str, str], stopping: threading.Event) -> None:
        self._folder = folder
        self._settings = {**_SERVER_SETTINGS, **settings}
        self._stopping = stopping

    @cached_property
    def binaries(self) -> Binaries:
        """Return programs that the account can run. Raises StartupError or OSError."""
        return make_runnable(self._folder.account, find_binaries())

    def launch(self, port: int | None) -> tuple[subprocess.Popen[bytes], int]:
        """Start a server on the port, or on a free one, and return it and its port once it accepts connections.

        Raises StartupError with PostgreSQL's reason, or OSError.
        """
        started_at = time.monotonic()
        while True:
            chosen = port or self._folder.choose_port()
            self._folder.truncate_log()
            written = self._folder.log.stat().st_size if self._folder.log.exists() else 0
            process = self._spawn(chosen)
            if self._wait_until_ready(process):
                return process, chosen
            if self._stopping.is_set():
                raise StartupError("PostgreSQL was told to stop while it was starting.")
            error = self._folder.get_error(written)
            is_transient = any(text in error for text in _TRANSIENT_ERRORS)
            if not is_transient or time.monotonic() - started_at > _TRANSIENT_SECONDS:
                raise StartupError(
                    f"PostgreSQL cannot start on {self._folder.cluster}: {error}; see {self._folder.log}."
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
                # PostgreSQL ignores the pid of its grandparent when it looks for a running server.
                environment={"PG_GRANDPARENT_PID": str(stale)} if stale else {},
            )
        finally:
            os.close(log)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        started_at = time.monotonic()
        while process.poll() is None:
            server = find_postmaster(self._folder.cluster)
            if server and server.ready and server.pid == process.pid:
                return True
            if self._stopping.is_set() or time.monotonic() - started_at > _READY_SECONDS:
                stop_process(process, _ABORT_SECONDS)
            time.sleep(_READY_POLL_SECONDS)
        return False


_CHECK_SECONDS = 0.25
_WAIT_SECONDS = 0.005
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# Time for a server to notice that its owner died. A server that stays longer was started by hand.
_ORPHAN_SECONDS = 2.0
_MAX_RESTARTS, _RESTARTS_SECONDS = 3, 60.0


class EmbeddedPostgres:
    """A PostgreSQL server on 127.0.0.1, shared by all processes that use the same data folder.

    The process that holds the owner's lock starts, supervises and stops the server. When it ends, another process takes
    over. All this runs in one thread that lives as long as the process, because on Linux the server is stopped when the
    *thread* that started it ends, even after SIGKILL. `start` may be called from any thread.
    """

    def __init__(self, data_directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """Add `settings` to PostgreSQL's. Raises StartupError when the folder cannot be served."""
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
        """Return the folder in use: below `/var/lib/shopassist` if PostgreSQL cannot enter the given one."""
        return self._folder.root

    @property
    def url(self) -> str:
        """Return the DSN with the password. Raises RuntimeError before `start`."""
        if self._url is None:
            raise RuntimeError("The embedded PostgreSQL has not been started.")
        return self._url

    def start(self) -> str:
        """Start or join the server and return its DSN once it accepts connections. Raises StartupError."""
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
        """Stop supervising, and stop the server if this process owns it. Takes up to 30 seconds."""
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
                self._supervise_safely()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            self._release()

    def _find_or_start(self) -> int:
        self._folder.account.make_folder(self._folder.root)
        self._lock = OwnerLock(self._folder)
        started_at = time.monotonic()
        while not self._stopping.is_set():
            is_owner = self._lock.try_acquire()
            server = find_postmaster(self._folder.cluster)
            waited = time.monotonic() - started_at
            if is_owner and server is None:
                self._folder.ensure_cluster(self._launcher.binaries)
                self._process, port = self._launcher.launch(None)
                return port
            if server and server.ready and (not is_owner or waited > _ORPHAN_SECONDS):
                return server.port
            if waited > _START_SECONDS:
                break
            time.sleep(_WAIT_SECONDS)
        raise StartupError(
            f"Another process has been starting or stopping the PostgreSQL of {self._folder.root} for too long: "
            f"end it, or see {self._folder.log}."
        )

    def _supervise_safely(self) -> None:
        try:
            self._supervise()
        except Exception:  # noqa: BLE001 - the server would go down with this thread
            structlog.get_logger(__name__).error("embedded_postgresql_restart_failed")

    def _supervise(self) -> None:
        if not self._lock or not self._lock.try_acquire():
            return
        self._folder.truncate_log()
        if self._process.poll() is None if self._process else find_postmaster(self._folder.cluster):
            return
        now = time.monotonic()
        if len(self._restarts) == _MAX_RESTARTS and now - self._restarts[0] < _RESTARTS_SECONDS:
            return
        self._restarts.append(now)
        self._process, _ = self._launcher.launch(self._port)
        structlog.get_logger(__name__).warning("embedded_postgresql_restarted")

    def _release(self) -> None:
        if self._process and self._process.poll() is None:
            stop_process(self._process, _STOP_SECONDS)
        self._process = None
        if self._lock:
            self._lock.close()
        self._lock = None
