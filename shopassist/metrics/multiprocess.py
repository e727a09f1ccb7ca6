"""Aggregate the metrics of several worker processes through files in a shared folder."""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from shopassist.metrics.registry import Aggregation, Labels, MetricFamily, MetricKind, SampleValue


def merge_families(processes: Iterable[Sequence[MetricFamily]]) -> list[MetricFamily]:
    """Families of every process put together: counts are added, gauges as each family says."""
    together: dict[str, MetricFamily] = {}
    for families in processes:
        for family in families:
            known = together.get(family.name)
            together[family.name] = family if known is None else _merge_two(known, family)
    return list(together.values())


def _merge_two(one: MetricFamily, other: MetricFamily) -> MetricFamily:
    if one.kind is MetricKind.GAUGE and one.across is Aggregation.LATEST:
        return max(one, other, key=lambda family: family.at)
    samples: dict[Labels, SampleValue] = dict(one.samples)
    for labels, value in other.samples.items():
        samples[labels] = _aggregate(one, samples[labels], value) if labels in samples else value
    return replace(one, samples=samples)


def _aggregate(family: MetricFamily, one: SampleValue, other: SampleValue) -> SampleValue:
    if isinstance(one, list) and isinstance(other, list):
        return [a + b for a, b in zip(one, other, strict=True)]
    if isinstance(one, list) or isinstance(other, list):
        raise TypeError(family.name)
    return max(one, other) if family.kind is MetricKind.GAUGE and family.across is Aggregation.MOST else one + other


def drop_gauges(families: Iterable[MetricFamily]) -> list[MetricFamily]:
    """What stays true of a process that has ended: what it counted, not what it was like."""
    return [family for family in families if family.kind is not MetricKind.GAUGE]


def family_to_row(family: MetricFamily) -> list[Any]:
    """A family as JSON has it."""
    samples = [[list(labels), value] for labels, value in family.samples.items()]
    return [
        *(family.name, family.kind, family.help, samples, list(family.labels)),
        *(family.across, list(family.bounds), family.at),
    ]


def row_to_family(row: list[Any]) -> MetricFamily:
    """What `written` wrote."""
    name, kind, help_, samples, labels, across, bounds, at = row
    return MetricFamily(
        name,
        MetricKind(kind),
        help_,
        {tuple(key): value for key, value in samples},
        tuple(labels),
        Aggregation(across),
        tuple(bounds),
        at,
    )


PUBLISH_INTERVAL_SECONDS = 2.0
"""How often each process writes its file: what one that is killed had counted since is lost."""

GAUGE_LIFETIME_SECONDS = 15.0
"""How long the gauges of a process that has stopped writing are shown."""

ENDED_PROCESSES_FILE = "ended.json"


class SharedMetrics:
    """The figures of all processes that were given the same folder, which is on this machine."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists, and is used by one start of the server alone."""
        self._folder = folder
        self._file = folder / f"{os.getpid()}-{uuid4().hex}.json"
        self._writing = Lock()
        self._newest = 0.0

    def publish(self, families: Sequence[MetricFamily], seen: float) -> None:
        """Let the other processes know the figures of this one as they were `seen` (monotonic seconds).

        Threads may do so in any order: what was seen earlier never takes the place of what was seen later.
        """
        with self._writing:
            if seen >= self._newest:
                self._newest = seen
                write_json(self._file, {"families": [family_to_row(family) for family in families], "at": seen})

    def gather(self) -> list[MetricFamily]:
        """The figures of all processes together, each of them as it was at most a few seconds ago."""
        with self._alone():
            ended = _load_json(self._folder / ENDED_PROCESSES_FILE) or {"names": [], "families": []}
            counted: list[list[MetricFamily]] = [_parse_families(ended)]
            gone: list[Path] = []
            for file in sorted(self._folder.glob("[0-9]*-*.json")):
                if file.name in ended["names"]:
                    file.unlink()  # whoever counted it among the ended had no time left to remove it
                elif snapshot := _load_json(file):
                    families, runs = _parse_families(snapshot), _is_running(file)
                    fresh = time.monotonic() - snapshot["at"] <= GAUGE_LIFETIME_SECONDS
                    counted.append(families if runs and fresh else drop_gauges(families))
                    if not runs:
                        gone.append(file)
                        counted[0] = merge_families([counted[0], counted.pop()])
            if gone:
                rows = [family_to_row(family) for family in counted[0]]
                write_json(
                    self._folder / ENDED_PROCESSES_FILE, {"names": [file.name for file in gone], "families": rows}
                )
                for file in gone:
                    file.unlink()
            return merge_families(counted)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block no other process gathers."""
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write JSON so that whoever reads `file` finds all of it or what was there before."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(file)


def _load_json(file: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content
    return None


def _parse_families(content: dict[str, Any]) -> list[MetricFamily]:
    return [row_to_family(row) for row in content["families"]]


def _is_running(file: Path) -> bool:
    """Whether the process whose file it is has not ended."""
    try:
        os.kill(int(file.name.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
