"""Processes that do not outlive the one that needs them."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from shopassist.db.embedded.account import Account
from shopassist.errors import StartupError

_POLL_SECONDS = 0.3
_PR_SET_PDEATHSIG = 1

# Loaded here because nothing may be loaded between fork and exec. Only Linux has it.
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
    """Have this process get the signal when its parent ends, however it ends.

    At once on Linux, within half a second elsewhere. Call it first thing: a parent that is gone before the call goes
    unnoticed. On Linux the parent is the *thread* that started us.
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
    account: Account,
    *,
    output: int,
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program as the account, with standard output and error going to `output`.

    It is out of reach of Ctrl-C, sees only the `environment` given, and gets SIGINT when the calling thread ends: call
    this from a thread that lives as long as the program is needed. Raises StartupError when it cannot be run.
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
            user=account.user if account.foreign else None,
            group=account.group if account.foreign else None,
            extra_groups=[] if account.foreign else None,
            # A change of account clears the death signal, and this runs after it. It is safe beside threads: all it
            # does is two system calls.
            preexec_fn=follow_parent,  # noqa: PLW1509
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = error.strerror if isinstance(error, OSError) else "the account cannot be changed"
        raise StartupError(f"{command[0]} cannot be run as {account.name}: {reason}.") from error
    if not _prctl:
        _watch_over(process)
    return process


def _watch_over(process: subprocess.Popen[bytes]) -> None:
    watcher = subprocess.Popen(  # noqa: S603 - the command is ours
        [sys.executable, "-I", "-S", "-c", _WATCHER]
        + [str(argument) for argument in (os.getpid(), process.pid, int(signal.SIGINT), _POLL_SECONDS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=watcher.wait, name="postgresql-watcher", daemon=True).start()


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Stop a PostgreSQL: a fast shutdown, after `patience` seconds an immediate one, at last by force."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        process.send_signal(number)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return
