"""The figures of worker processes that serve together, shared through a folder of theirs.

Each process keeps one file up to date. Whoever is asked first brings its own up to date and then adds up all of them,
so that what is shown never goes down: what a process that has ended had counted is kept in one file for all of those.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from shopassist.telemetry.figures import Family
from shopassist.telemetry.merging import counts_only, merged, read, written

PERIOD_SECONDS = 2.0
"""How often each process writes its file: what one that is killed had counted since is lost."""

FRESH_SECONDS = 15.0
"""How long the gauges of a process that has stopped writing are shown."""

ENDED = "ended.json"


class SharedFigures:
    """The figures of all processes that were given the same folder, which is on this machine."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists, and is used by one start of the server alone."""
        self._folder = folder
        self._file = folder / f"{os.getpid()}-{uuid4().hex}.json"
        self._writing = Lock()
        self._newest = 0.0

    def publish(self, families: Sequence[Family], seen: float) -> None:
        """Let the other processes know the figures of this one as they were `seen` (monotonic seconds).

        Threads may do so in any order: what was seen earlier never takes the place of what was seen later.
        """
        with self._writing:
            if seen >= self._newest:
                self._newest = seen
                write(self._file, {"families": [written(family) for family in families], "at": seen})

    def gather(self) -> list[Family]:
        """The figures of all processes together, each of them as it was at most a few seconds ago."""
        with self._alone():
            ended = _load(self._folder / ENDED) or {"names": [], "families": []}
            counted: list[list[Family]] = [_families(ended)]
            gone: list[Path] = []
            for file in sorted(self._folder.glob("[0-9]*-*.json")):
                if file.name in ended["names"]:
                    file.unlink()  # whoever counted it among the ended had no time left to remove it
                elif snapshot := _load(file):
                    families, runs = _families(snapshot), _runs(file)
                    fresh = time.monotonic() - snapshot["at"] <= FRESH_SECONDS
                    counted.append(families if runs and fresh else counts_only(families))
                    if not runs:
                        gone.append(file)
                        counted[0] = merged([counted[0], counted.pop()])
            if gone:
                rows = [written(family) for family in counted[0]]
                write(self._folder / ENDED, {"names": [file.name for file in gone], "families": rows})
                for file in gone:
                    file.unlink()
            return merged(counted)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block no other process gathers."""
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write(file: Path, content: dict[str, Any]) -> None:
    """Write JSON so that whoever reads `file` finds all of it or what was there before."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(file)


def _load(file: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content
    return None


def _families(content: dict[str, Any]) -> list[Family]:
    return [read(row) for row in content["families"]]


def _runs(file: Path) -> bool:
    """Whether the process whose file it is has not ended."""
    try:
        os.kill(int(file.name.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
