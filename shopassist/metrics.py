"""Metrics of this process, and of several worker processes together (docs/adr/0022).

`prometheus_client` only renders them and is imported then: its import would delay the start.
"""

import fcntl
import json
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace
from itertools import accumulate, chain
from pathlib import Path
from threading import Lock
from typing import Any, Literal
from uuid import uuid4

from shopassist.logging import LogLimit

Labels = tuple[str, ...]
SampleValue = float | list[float]
"""A number; for a histogram the count in each bucket, then the sum."""

Samples = Mapping[Any, SampleValue] | float
"""Values by label values; samples of a single label may be keyed by a string."""

Aggregation = Literal["sum", "max", "latest"]
"""How the gauges of several processes are combined."""

DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds for durations (seconds)."""

SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Upper bounds for counts."""

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUS_CLASSES = {number: f"{number}xx" for number in range(1, 6)}
OTHER_LABEL = "other"
"""Label for values that callers make up, so that they cannot create series."""


class Histogram:
    """Counts of values per bucket, and their sum, by labels."""

    __slots__ = ("bounds", "samples")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` are inclusive upper bounds in ascending order; one more bucket takes larger values."""
        self.bounds = bounds
        self.samples: dict[Labels, list[float]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count one value."""
        counts = self.samples.get(labels)
        if counts is None:
            counts = self.samples[labels] = [0.0] * (len(self.bounds) + 2)
        counts[bisect_left(self.bounds, value)] += 1.0
        counts[-1] += value


@dataclass(slots=True)
class RequestMetrics:
    """Durations of HTTP requests by method, route template and status class; errors by type; refused tokens by kind."""

    seconds: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS))
    errors: Counter[Labels] = field(default_factory=Counter)
    refused_tokens: Counter[str] = field(default_factory=Counter)
    token_log: LogLimit = field(default_factory=LogLimit)
    in_progress: int = 0

    def count_request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request. `route` is the template, or None if no route matched."""
        known_method = method if method in HTTP_METHODS else OTHER_LABEL
        status_class = STATUS_CLASSES.get(status // 100, OTHER_LABEL)
        self.seconds.observe(seconds, known_method, route or OTHER_LABEL, status_class)


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric with a value for each combination of labels.

    `bounds` are those of a histogram. `measured_at` (seconds since the epoch) is for gauges that show the latest value.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    samples: Mapping[Labels, SampleValue]
    labels: Labels = ()
    aggregation: Aggregation = "sum"
    bounds: tuple[float, ...] = ()
    measured_at: float = 0.0


def counter(name: str, help_: str, samples: Samples, *labels: str) -> MetricFamily:
    """Build a counter, named without `_total`."""
    return MetricFamily("counter", name, help_, _copy_samples(samples), labels)


def gauge(
    name: str, help_: str, samples: Samples, *labels: str, aggregation: Aggregation = "sum", measured_at: float = 0.0
) -> MetricFamily:
    """Build a gauge."""
    return MetricFamily("gauge", name, help_, _copy_samples(samples), labels, aggregation, measured_at=measured_at)


def histogram(name: str, help_: str, values: Histogram, *labels: str) -> MetricFamily:
    """Build the family of a histogram."""
    samples = {key: list(counts) for key, counts in values.samples.items()}
    return MetricFamily("histogram", name, help_, samples, labels, bounds=values.bounds)


def _copy_samples(samples: Samples) -> dict[Labels, SampleValue]:
    if not isinstance(samples, Mapping):
        return {(): float(samples)}
    return {(key,) if isinstance(key, str) else key: value for key, value in samples.items()}


def render_families(families: Iterable[MetricFamily], accept: str) -> tuple[bytes, str]:
    """Return the families as text and its content type, in the format that the `Accept` header prefers."""
    from prometheus_client import core, exposition  # noqa: PLC0415 - see above

    kinds: dict[str, Any] = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    metrics = []
    for family in families:
        metric = kinds[family.kind](family.name, family.help, labels=family.labels)
        bounds = [*map(str, family.bounds), "+Inf"]
        for labels, value in family.samples.items():
            if isinstance(value, list):
                metric.add_metric(labels, list(zip(bounds, accumulate(value[:-1]), strict=True)), value[-1])
            else:
                metric.add_metric(labels, value)
        metrics.append(metric)

    class Collector:
        def collect(self) -> list[Any]:
            return metrics

    encode, content_type = exposition.choose_encoder(accept)
    return encode(Collector()), content_type


PUBLISH_INTERVAL_SECONDS = 2.0
"""How often each process writes its file. A killed process loses what it counted since."""

GAUGE_LIFETIME_SECONDS = 15.0
"""How long the gauges of a process that stopped writing are shown."""

ENDED_PROCESSES_FILE = "ended.json"


def merge_families(processes: Iterable[Iterable[MetricFamily]]) -> list[MetricFamily]:
    """Combine the families of several processes: add counters and histograms, aggregate gauges."""
    merged: dict[str, MetricFamily] = {}
    for family in chain.from_iterable(processes):
        known = merged.get(family.name)
        merged[family.name] = family if known is None else _merge_two(known, family)
    return list(merged.values())


def _merge_two(first: MetricFamily, second: MetricFamily) -> MetricFamily:
    if first.aggregation == "latest":
        return max(first, second, key=lambda family: family.measured_at)
    samples: dict[Labels, Any] = dict(first.samples)
    value: Any
    for labels, value in second.samples.items():
        known = samples.get(labels)
        if known is None:
            samples[labels] = value
        elif first.kind == "histogram":
            samples[labels] = [a + b for a, b in zip(known, value, strict=True)]
        else:
            samples[labels] = max(known, value) if first.aggregation == "max" else known + value
    return replace(first, samples=samples)


def family_to_row(family: MetricFamily) -> list[Any]:
    """Convert a family for JSON."""
    return [*astuple(replace(family, samples={})), list(family.samples.items())]


def row_to_family(row: list[Any]) -> MetricFamily:
    """Convert a family back."""
    kind, name, help_, _, labels, aggregation, bounds, measured_at, samples = row
    values = {tuple(key): value for key, value in samples}
    return MetricFamily(kind, name, help_, values, tuple(labels), aggregation, tuple(bounds), measured_at)


class SharedMetrics:
    """Metrics of all processes of this machine that use the same folder."""

    def __init__(self, folder: Path) -> None:
        """`folder` exists, and belongs to one start of the server."""
        self._folder = folder
        self._file = folder / f"{os.getpid()}-{uuid4().hex}.json"
        self._lock = Lock()
        self._newest = 0.0

    def publish(self, families: Iterable[MetricFamily], measured_at: float) -> None:
        """Write the metrics of this process, measured at a time (monotonic seconds).

        Threads may call this in any order: older metrics never replace newer ones.
        """
        with self._lock:
            if measured_at >= self._newest:
                self._newest = measured_at
                _write_file(self._file, families, at=measured_at)

    def gather(self) -> list[MetricFamily]:
        """Return the combined metrics of all processes. What an ended process counted is moved to one file."""
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ended_file = self._folder / ENDED_PROCESSES_FILE
            ended, more = _read_file(ended_file)
            running: list[list[MetricFamily]] = []
            ended_files: list[Path] = []
            for file in sorted(self._folder.glob("[0-9]*-*.json")):
                if file.name in more.get("names", ()):
                    file.unlink()  # the process that added it to the ended ones was killed before it removed it
                    continue
                families, written = _read_file(file)
                counted = [family for family in families if family.kind != "gauge"]
                if _is_running(file):
                    is_fresh = time.monotonic() - written.get("at", 0.0) <= GAUGE_LIFETIME_SECONDS
                    running.append(families if is_fresh else counted)
                else:
                    ended_files.append(file)
                    ended = merge_families([ended, counted])
            if ended_files:
                _write_file(ended_file, ended, names=[file.name for file in ended_files])
                for file in ended_files:
                    file.unlink()
            return merge_families([ended, *running])


def _write_file(file: Path, families: Iterable[MetricFamily], **more: Any) -> None:
    """Write a file that readers see complete or not at all."""
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps({"families": list(map(family_to_row, families)), **more}), encoding="utf-8")
    draft.replace(file)


def _read_file(file: Path) -> tuple[list[MetricFamily], dict[str, Any]]:
    """Return the families in a file, and what else is in it; nothing if there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], {}
    return list(map(row_to_family, content.pop("families"))), content


def _is_running(file: Path) -> bool:
    """Return whether the process that wrote `file` is running."""
    try:
        os.kill(int(file.name.partition("-")[0]), 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
