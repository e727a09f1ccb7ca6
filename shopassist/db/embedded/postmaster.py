"""What the operating system and `postmaster.pid` tell about the server of a cluster."""

import os
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")
_PID, _PORT, _STATUS = 0, 3, 7


@dataclass(frozen=True)
class Postmaster:
    """A live server: its process, its TCP port, and whether it accepts connections."""

    pid: int
    port: int
    ready: bool


def find_postmaster(cluster: Path) -> Postmaster | None:
    """The live server of the cluster; None when there is none or it is only just coming up."""
    lines = _read_lines(cluster)
    if len(lines) <= _PORT or not _is_postgres(int(lines[_PID]), cluster):
        return None
    return Postmaster(int(lines[_PID]), int(lines[_PORT]), lines[_STATUS:] == ["ready"])


def reused_pid(cluster: Path) -> int | None:
    """The pid in a `postmaster.pid` that a crash left behind, where another program has that pid now.

    Containers count pids from 1, so this is common there, and PostgreSQL would take that program for a server.
    """
    lines = _read_lines(cluster)
    return int(lines[_PID]) if lines and not _is_postgres(int(lines[_PID]), cluster) else None


def _read_lines(cluster: Path) -> list[str]:
    try:
        text = (cluster / "postmaster.pid").read_text()
    except FileNotFoundError:
        return []
    lines = [line.strip() for line in text.splitlines()]
    return lines if lines and lines[_PID].isdigit() else []


def _is_postgres(pid: int, cluster: Path) -> bool:
    if not _PROCESSES.joinpath("self").exists():
        return _is_alive(pid)
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
        return True  # another account's process, and a container may deny even root this look


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
