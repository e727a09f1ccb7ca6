"""Starts and stops processes of the embedded server, and finds it by `postmaster.pid`."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shopassist.db.embedded.binaries import OsAccount
from shopassist.errors import StartupError

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
        text = (cluster / "postmaster.pid").read_text()
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
        return True
    return True
