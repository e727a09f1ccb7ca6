"""Combines the metrics of worker processes through files in a shared folder.

`prometheus_client`'s own multiprocess mode has no custom collectors, and no gauges that end with their process or are
only valid while the process responds (docs/adr/0022).
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

from shopassist.metrics.registry import Aggregation, Labels, MetricFamily, MetricKind, SampleValue

PUBLISH_INTERVAL_SECONDS = 2.0
"""How often each process writes its file. A killed process loses what it counted since."""

GAUGE_LIFETIME_SECONDS = 15.0
"""How long the gauges of a process that stopped writing are shown."""

ENDED_PROCESSES_FILE = "ended.json"


def merge_families(processes: Iterable[Sequence[MetricFamily]]) -> list[MetricFamily]:
    """Combine the families of several processes: add counters and histograms, aggregate gauges."""
    merged: dict[str, MetricFamily] = {}
    for families in processes:
        for family in families:
            known = merged.get(family.name)
            merged[family.name] = family if known is None else _merge_two(known, family)
    return list(merged.values())


def _merge_two(first: MetricFamily, second: MetricFamily) -> MetricFamily:
    if first.aggregation is Aggregation.LATEST:
        return max(first, second, key=lambda family: family.measured_at)
    samples: dict[Labels, SampleValue] = dict(first.samples)
    for labels, value in second.samples.items():
        samples[labels] = _merge_values(first, samples[labels], value) if labels in samples else value
    return replace(first, samples=samples)


def _merge_values(family: MetricFamily, first: SampleValue, second: SampleValue) -> SampleValue:
    if isinstance(first, list) and isinstance(second, list):
        return [a + b for a, b in zip(first, second, strict=True)]
    if isinstance(first, list) or isinstance(second, list):
        raise TypeError(family.name)
    return max(first, second) if family.aggregation is Aggregation.MAX else first + second


def family_to_row(family: MetricFamily) -> list[Any]:
    """Convert a family for JSON."""
    values = family.samples.items()
    return [*astuple(replace(family, samples={})), [[list(labels), value] for labels, value in values]]


def row_to_family(row: list[Any]) -> MetricFamily:
    """Convert a family back."""
    name, kind, help_, _, labels, aggregation, bounds, measured_at, samples = row
    values = {tuple(key): value for key, value in samples}
    options = Aggregation(aggregation), tuple(bounds), measured_at
    return MetricFamily(name, MetricKind(kind), help_, values, tuple(labels), *options)


class SharedMetrics:
    """Metrics of all processes of this machine that use the same folder."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists, and belongs to one start of the server."""
        self._folder = folder
        self._file = folder / f"{os.getpid()}-{uuid4().hex}.json"
        self._lock = Lock()
        self._newest = 0.0

    def publish(self, families: Sequence[MetricFamily], measured_at: float) -> None:
        """Write the metrics of this process, measured at a time (monotonic seconds).

        Threads may call this in any order: older metrics never replace newer ones.
        """
        with self._lock:
            if measured_at >= self._newest:
                self._newest = measured_at
                _write_json(self._file, {"families": list(map(family_to_row, families)), "at": measured_at})

    def gather(self) -> list[MetricFamily]:
        """Return the combined metrics of all processes. What an ended process counted is moved to one file."""
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ended = _read_json(self._folder / ENDED_PROCESSES_FILE) or {"names": [], "families": []}
            ended_families = _parse_families(ended)
            running: list[list[MetricFamily]] = []
            ended_files: list[Path] = []
            for file in sorted(self._folder.glob("[0-9]*-*.json")):
                if file.name in ended["names"]:
                    file.unlink()  # the process that added it to the ended ones was killed before it removed it
                elif content := _read_json(file):
                    families = _parse_families(content)
                    counted = [family for family in families if family.kind is not MetricKind.GAUGE]
                    if not _is_running(file):
                        ended_files.append(file)
                        ended_families = merge_families([ended_families, counted])
                    else:
                        is_fresh = time.monotonic() - content["at"] <= GAUGE_LIFETIME_SECONDS
                        running.append(families if is_fresh else counted)
            if ended_files:
                names, rows = [file.name for file in ended_files], list(map(family_to_row, ended_families))
                _write_json(self._folder / ENDED_PROCESSES_FILE, {"names": names, "families": rows})
                for file in ended_files:
                    file.unlink()
            return merge_families([ended_families, *running])


def _write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a file that readers see complete or not at all."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(file)


def _read_json(file: Path) -> dict[str, Any] | None:
    with suppress(FileNotFoundError):
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return content
    return None


def _parse_families(content: dict[str, Any]) -> list[MetricFamily]:
    return list(map(row_to_family, content["families"]))


def _is_running(file: Path) -> bool:
    try:
        os.kill(int(file.name.partition("-")[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
