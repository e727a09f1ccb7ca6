"""The data folder of the embedded server: cluster, password, port, log and the lock of its owner."""

import fcntl
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shopassist.db.embedded.binaries import CLUSTER_NAME, Binaries, OsAccount
from shopassist.db.embedded.process import spawn
from shopassist.errors import StartupError

DATABASE_NAME = "shopassist"
HOST = "127.0.0.1"
_STARTING_MESSAGE = "the database system is"
_LOG_LIMIT_BYTES = 10_000_000
_BUILTIN_LOCALE_SINCE = 17
# Below the ephemeral ports of operating systems, so that the port is likely to be free at the next start.
_PORT_RANGE = range(20_000, 32_000)


@dataclass(frozen=True)
class DataFolder:
    """The files of one embedded server. Methods raise OSError where a file cannot be read or written."""

    root: Path
    account: OsAccount

    @property
    def cluster(self) -> Path:
        """Return PostgreSQL's data directory."""
        return self.root / CLUSTER_NAME

    @property
    def log(self) -> Path:
        """Return the server's log file."""
        return self.root / "postgresql.log"

    @property
    def _password(self) -> Path:
        return self.root / "postgresql.password"

    @property
    def _port(self) -> Path:
        return self.root / "postgresql.port"

    def url(self, port: int) -> str:
        """Return the DSN of the server on this port, with its password."""
        return f"postgresql://{DATABASE_NAME}:{self._password.read_text()}@{HOST}:{port}/{DATABASE_NAME}"

    def choose_port(self) -> int:
        """Return the last port if it is free, else a new one, and store it."""
        last = self._port.read_text() if self._port.exists() else ""
        if last.isdigit() and _is_port_free(int(last)):
            return int(last)
        port = next(port for port in iter(lambda: secrets.choice(_PORT_RANGE), 0) if _is_port_free(port))
        self._port.write_text(str(port))
        return port

    def open_log(self) -> int:
        """Return a descriptor that appends to the log."""
        return os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def truncate_log(self) -> None:
        """Empty the log if it is larger than 10 MB."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            os.truncate(self.log, 0)

    def ensure_cluster(self, binaries: Binaries) -> None:
        """Create the cluster if there is none. The caller must hold the owner's lock.

        Raises StartupError for incomplete data, data of another version, and when initdb fails.
        """
        marker = self.cluster / "PG_VERSION"
        if marker.exists():
            found = marker.read_text().strip()
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
        if not self._password.exists():
            raise StartupError(
                f"{self._password} with the password of the database is missing: put it back, or move {self.cluster} "
                "away to start afresh."
            )

    def _create_cluster(self, binaries: Binaries) -> None:
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
            self._run([*_build_initdb_command(binaries), f"--pwfile={self._password}", f"--pgdata={staging}"])
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


class OwnerLock:
    """The lock of the process that supervises the server. The kernel frees it however that process ends."""

    def __init__(self, folder: DataFolder) -> None:
        """Create the lock file. Raises OSError when the folder is not writable."""
        self._descriptor = os.open(folder.root / "postgresql.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def try_acquire(self) -> bool:
        """Return whether this process holds the lock."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)


def _build_initdb_command(binaries: Binaries) -> list[str]:
    locale = ["--locale=C.UTF-8"]
    if binaries.version >= _BUILTIN_LOCALE_SINCE:
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return [
        binaries.program("initdb"),
        f"--username={DATABASE_NAME}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        *locale,
    ]


def _is_port_free(port: int) -> bool:
    with socket.socket() as probe:
        # As PostgreSQL does: ignore connections of the last run in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _find_error(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines() or ["it gave no reason"]
    # The first error is the cause. Replies to early clients are not errors.
    errors = [line for line in lines if re.search("FATAL|PANIC|error:|ERROR", line) and _STARTING_MESSAGE not in line]
    return re.sub("^.*?(FATAL|PANIC|error|ERROR|LOG): *", "", errors[0] if errors else lines[-1]).rstrip(".")
