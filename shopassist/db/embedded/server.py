"""The embedded server: started or found, looked after, stopped by whoever started it."""

import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path

import structlog

from shopassist.db.embedded.account import choose_place
from shopassist.db.embedded.folder import Folder, OwnerLock
from shopassist.db.embedded.launch import Launcher
from shopassist.db.embedded.postmaster import find_postmaster
from shopassist.db.embedded.process import end
from shopassist.errors import StartupError

_LOOK_SECONDS = 0.25
_WAIT_SECONDS = 0.005
_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# How long a server whose owner has just died may take to notice. One that stays was started by hand.
_ORPHAN_SECONDS = 2.0
_RESTARTS, _RESTARTS_SECONDS = 3, 60.0


class EmbeddedPostgres:
    """A PostgreSQL of our own on 127.0.0.1, shared by all processes that use the same data folder.

    Who takes the owner's lock starts the server and stops it. The others use it, and when lock and server are gone
    the first to notice becomes the owner. All this happens in one thread that lives as long as the process, since
    on Linux the server is told to stop when the *thread* that started it ends: so it goes down with us even after
    SIGKILL, and `start` may be called from any thread.
    """

    def __init__(self, data_directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are further ones of PostgreSQL. Raises StartupError when the folder cannot be served."""
        root, account = choose_place(data_directory)
        self._folder = Folder(root, account)
        self._stopping = threading.Event()
        self._launcher = Launcher(self._folder, settings or {}, self._stopping)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: OwnerLock | None = None
        self._port: int | None = None
        self._url: str | None = None
        self._restarts: deque[float] = deque(maxlen=_RESTARTS)
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
            while not self._stopping.wait(_LOOK_SECONDS):
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
        if len(self._restarts) == _RESTARTS and now - self._restarts[0] < _RESTARTS_SECONDS:
            return
        self._restarts.append(now)
        self._process, _ = self._launcher.launch(self._port)
        structlog.get_logger(__name__).warning("embedded_postgresql_restarted")

    def _let_go(self) -> None:
        if self._process and self._process.poll() is None:
            end(self._process, _STOP_SECONDS)
        self._process = None
        if self._lock:
            self._lock.close()
        self._lock = None
