"""Counters, histograms and metric families of this process, without a metrics library."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Labels = tuple[str, ...]
SampleValue = float | list[float]

DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds for what takes time."""

SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Bounds for how many there are of something."""

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_LABEL = "other"
"""What a caller made up: one value, so that no caller decides how many series there are."""


class MetricKind(StrEnum):
    """Counters only grow, gauges go up and down, histograms count between bounds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Aggregation(StrEnum):
    """What the gauges of several processes make together: their sum, the largest, or what was seen last."""

    SUM = "sum"
    MOST = "most"
    LATEST = "latest"


class Histogram:
    """How many values fell between bounds, and their sum, by labels."""

    __slots__ = ("bounds", "samples")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` are upper, included, and ascending; what is above the last has a place of its own."""
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
    """HTTP requests (seconds, by method, route template and class of status), errors by type, requests under way."""

    seconds: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS))
    errors: Counter[Labels] = field(default_factory=Counter)
    under_way: int = 0

    def answered(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count one request. `route` is the template, None where no route was found."""
        self.seconds.observe(
            seconds,
            method if method in HTTP_METHODS else OTHER_LABEL,
            route or OTHER_LABEL,
            STATUS_CLASSES.get(status // 100, OTHER_LABEL),
        )


STATUS_CLASSES = {number: f"{number}xx" for number in range(1, 6)}


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric: a number for each combination of `labels`, of histograms the counts between `bounds` and the sum.

    `at` is when it was seen, in seconds since the epoch, for gauges of which the latest counts.
    """

    name: str
    kind: MetricKind
    help: str
    samples: Mapping[Labels, SampleValue]
    labels: Labels = ()
    across: Aggregation = Aggregation.SUM
    bounds: tuple[float, ...] = ()
    at: float = 0.0


def counter(name: str, help_: str, samples: Mapping[Labels, SampleValue] | float, *labels: str) -> MetricFamily:
    """A counter, named without `_total`."""
    return MetricFamily(name, MetricKind.COUNTER, help_, _copy_samples(samples), labels)


def gauge(
    name: str,
    help_: str,
    samples: Mapping[Labels, SampleValue] | float,
    *labels: str,
    across: Aggregation = Aggregation.SUM,
    at: float = 0.0,
) -> MetricFamily:
    """A gauge."""
    return MetricFamily(name, MetricKind.GAUGE, help_, _copy_samples(samples), labels, across, at=at)


def histogram(name: str, help_: str, values: Histogram, *labels: str) -> MetricFamily:
    """A histogram."""
    samples = {key: list(counts) for key, counts in values.samples.items()}
    return MetricFamily(name, MetricKind.HISTOGRAM, help_, samples, labels, bounds=values.bounds)


def _copy_samples(samples: Mapping[Labels, SampleValue] | float) -> Mapping[Labels, SampleValue]:
    """A copy, since what is counted goes on being counted."""
    return dict(samples) if isinstance(samples, Mapping) else {(): float(samples)}
