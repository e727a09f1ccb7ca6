"""The embedded server: its data folder, and the thread that starts, shares, supervises and stops it."""

import fcntl
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path

import structlog

from shopassist.db.embedded.programs import (
    CLUSTER_NAME,
    Binaries,
    OsAccount,
    choose_folder,
    find_binaries,
    find_postmaster,
    find_reused_pid,
    make_runnable,
    spawn,
    stop_process,
)
from shopassist.errors import StartupError
from shopassist.text import read_text_file

DATABASE_NAME = "shopassist"
HOST = "127.0.0.1"
_PASSWORD_PATTERN = re.compile(r"[\w-]+", re.ASCII)
_STARTING_MESSAGE = "the database system is"
_LOG_LIMIT_BYTES = 10_000_000
_BUILTIN_LOCALE_SINCE = 17
# Below the ephemeral ports of operating systems, so that the port is likely to be free at the next start.
_PORT_RANGE = range(20_000, 32_000)


class DataFolder:
    """The files of one embedded server. Methods raise OSError where a file cannot be read or written."""

    def __init__(self, root: Path, account: OsAccount) -> None:
        self.root = root
        self.account = account
        self.cluster = root / CLUSTER_NAME
        self.log = root / "postgresql.log"
        self._password = root / "postgresql.password"
        self._port = root / "postgresql.port"

    def url(self, port: int) -> str:
        """Return the DSN of the server on this port, with its password."""
        return f"postgresql://{DATABASE_NAME}:{self._read_password()}@{HOST}:{port}/{DATABASE_NAME}"

    def _read_password(self) -> str:
        return read_text_file(self._password).strip() if self._password.exists() else ""

    def choose_port(self) -> int:
        """Return the last port if it is free, else a new one, and store it."""
        last = read_text_file(self._port) if self._port.exists() else ""
        if last.isdigit() and _is_port_free(int(last)):
            return int(last)
        port = next(port for port in iter(lambda: secrets.choice(_PORT_RANGE), 0) if _is_port_free(port))
        self._port.write_text(str(port))
        return port

    def limit_log(self) -> int:
        """Empty the log if it is larger than 10 MB, and return its size."""
        size = self.log.stat().st_size if self.log.exists() else 0
        if size <= _LOG_LIMIT_BYTES:
            return size
        os.truncate(self.log, 0)
        return 0

    def ensure_cluster(self, binaries: Binaries) -> None:
        """Create the cluster if there is none. The caller must hold the owner's lock.

        Raises StartupError for incomplete data, data of another version, and when initdb fails.
        """
        marker = self.cluster / "PG_VERSION"
        if marker.exists():
            found = read_text_file(marker).strip()
            if found != str(binaries.version):
                raise StartupError(
                    f"The data in {self.cluster} is of PostgreSQL {found} and this is PostgreSQL {binaries.version}: "
                    "move it over by backup and restore, or set SHOPASSIST_DATA to another folder."
                )
        elif self.cluster.exists() and any(self.cluster.iterdir()):
            raise StartupError(
                f"{self.cluster} is not a complete PostgreSQL data folder (its PG_VERSION is missing): restore it "
                "from a backup, or move it away to start afresh."
            )
        else:
            self._create_cluster(binaries)
        if not _PASSWORD_PATTERN.fullmatch(self._read_password()):
            raise StartupError(
                f"{self._password} with the password of the database is missing or damaged: put it back, or move "
                f"{self.cluster} away to start afresh."
            )

    def _create_cluster(self, binaries: Binaries) -> None:
        if not self.account.has_name:
            raise StartupError(
                f"PostgreSQL makes no database for {self.account.name}, which has no name: add it to /etc/passwd, run "
                "as a user with a name, or set DATABASE_URL."
            )
        # Created in a staging folder and renamed, so that a crash never leaves an incomplete cluster.
        for leftover in self.root.glob(f"{CLUSTER_NAME}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._password.unlink(missing_ok=True)
        self._password.touch(0o600)
        self._password.write_text(secrets.token_urlsafe(24))
        self.account.give(self._password)
        staging = Path(tempfile.mkdtemp(prefix=f"{CLUSTER_NAME}.new-", dir=self.root))
        self.account.give(staging)
        try:
            locale = ["--locale=C.UTF-8"]
            if binaries.version >= _BUILTIN_LOCALE_SINCE:
                locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            initdb = [binaries.program("initdb"), f"--username={DATABASE_NAME}", "--auth=scram-sha-256"]
            files = [f"--pwfile={self._password}", f"--pgdata={staging}"]
            self._run([*initdb, "--encoding=UTF8", *locale, *files])
            single = [binaries.program("postgres"), "--single", "-c", "exit_on_error=on", "-D", str(staging)]
            self._run([*single, "postgres"], f"CREATE DATABASE {DATABASE_NAME}".encode())
            staging.rename(self.cluster)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _run(self, command: list[str], text: bytes = b"") -> None:
        with spawn(command, self.account, stdin=subprocess.PIPE, output=subprocess.PIPE) as process:
            output, _ = process.communicate(text)
        if process.returncode:
            raise StartupError(f"PostgreSQL could not make a database in {self.root}: {_find_error(output)}.")

    def get_error(self, since: int) -> str:
        """Return why the server ended, from its log after the first `since` bytes."""
        with self.log.open("rb") as file:
            file.seek(since)
            return _find_error(file.read())


def _is_port_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: ignore connections of the last run in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _try_lock(descriptor: int) -> bool:
    """Return whether this process has the supervisor's lock. The kernel frees it however the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _find_error(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
    # The first error is the cause. Replies to early clients are not errors.
    errors = [line for line in lines if re.search("FATAL|PANIC|error:|ERROR", line) and _STARTING_MESSAGE not in line]
    return re.sub("^.*?(FATAL|PANIC|error|ERROR|LOG): *", "", errors[0] if errors else lines[-1]).rstrip(".")


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
_POLL_SECONDS = 0.005
_READY_SECONDS = 60.0
_ABORT_SECONDS = 10.0
# Left-overs of a server that has just died, and a port that is briefly in use.
_TRANSIENT_ERRORS = ("already exists", "shared memory block", "could not create any TCP/IP sockets")
_TRANSIENT_SECONDS, _TRANSIENT_PAUSE_SECONDS = 10.0, 0.1
_CHECK_SECONDS = 0.25
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
        self._settings = {**_SERVER_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
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
                try:
                    self._supervise()
                except Exception:  # noqa: BLE001 - the server would go down with this thread
                    structlog.get_logger(__name__).error("embedded_postgresql_restart_failed")
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            if self._process and self._process.poll() is None:
                stop_process(self._process, _STOP_SECONDS)
            self._process = None
            if self._lock is not None:
                os.close(self._lock)
            self._lock = None

    def _find_or_start(self) -> int:
        self._folder.account.make_folder(self._folder.root)
        self._lock = os.open(self._folder.root / "postgresql.lock", os.O_RDWR | os.O_CREAT, 0o600)
        started_at = time.monotonic()
        while not self._stopping.is_set():
            is_owner = _try_lock(self._lock)
            server = find_postmaster(self._folder.cluster)
            waited = time.monotonic() - started_at
            if is_owner and server is None:
                self._folder.ensure_cluster(self._binaries)
                self._process, port = self._launch(None)
                return port
            if server and server.ready and (not is_owner or waited > _ORPHAN_SECONDS):
                return server.port
            if waited > _START_SECONDS:
                break
            time.sleep(_POLL_SECONDS)
        raise StartupError(
            f"Another process has been starting or stopping the PostgreSQL of {self._folder.root} for too long: "
            f"end it, or see {self._folder.log}."
        )

    @cached_property
    def _binaries(self) -> Binaries:
        """Programs that the account can run. Raises StartupError or OSError."""
        return make_runnable(self._folder.account, find_binaries())

    def _launch(self, port: int | None) -> tuple[subprocess.Popen[bytes], int]:
        """Start a server on the port, or on a free one, and return it and its port once it accepts connections.

        The caller must hold the lock. Raises StartupError with PostgreSQL's reason, or OSError.
        """
        started_at = time.monotonic()
        while True:
            chosen = port or self._folder.choose_port()
            log_size = self._folder.limit_log()
            process = self._spawn(chosen)
            if self._wait_until_ready(process):
                return process, chosen
            if self._stopping.is_set():
                raise StartupError("PostgreSQL was told to stop while it was starting.")
            error = self._folder.get_error(log_size)
            is_transient = any(text in error for text in _TRANSIENT_ERRORS)
            if not is_transient or time.monotonic() - started_at > _TRANSIENT_SECONDS:
                raise StartupError(
                    f"PostgreSQL cannot start on {self._folder.cluster}: {error}; see {self._folder.log}."
                )
            time.sleep(_TRANSIENT_PAUSE_SECONDS)

    def _spawn(self, port: int) -> subprocess.Popen[bytes]:
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        command = [self._binaries.program("postgres"), "-D", str(self._folder.cluster), "-p", str(port), *settings]
        stale = find_reused_pid(self._folder.cluster)
        # PostgreSQL ignores the pid of its grandparent when it looks for a running server.
        environment = {"PG_GRANDPARENT_PID": str(stale)} if stale else {}
        with open(self._folder.log, "ab", opener=partial(os.open, mode=0o600)) as log:
            return spawn(command, self._folder.account, output=log.fileno(), environment=environment)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        started_at = time.monotonic()
        while process.poll() is None:
            server = find_postmaster(self._folder.cluster)
            if server and server.ready and server.pid == process.pid:
                return True
            if self._stopping.is_set() or time.monotonic() - started_at > _READY_SECONDS:
                stop_process(process, _ABORT_SECONDS)
            time.sleep(_POLL_SECONDS)
        return False

    def _supervise(self) -> None:
        if self._lock is None or not _try_lock(self._lock):
            return
        self._folder.limit_log()
        is_running = self._process.poll() is None if self._process else find_postmaster(self._folder.cluster)
        if is_running:
            return
        now = time.monotonic()
        if len(self._restarts) == _MAX_RESTARTS and now - self._restarts[0] < _RESTARTS_SECONDS:
            return
        self._restarts.append(now)
        self._process, _ = self._launch(self._port)
        structlog.get_logger(__name__).warning("embedded_postgresql_restarted")
