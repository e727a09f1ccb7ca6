"""Counters, histograms and metric families of this process.

`prometheus_client` only renders them and is imported then: its import would delay the start.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from typing import Any

Labels = tuple[str, ...]
SampleValue = float | list[float]
"""A number; for a histogram the count in each bucket, then the sum."""

Samples = Mapping[Any, SampleValue] | float
"""Values by label values; samples of a single label may be keyed by a string."""

DURATION_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds for durations (seconds)."""

SIZE_BOUNDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Upper bounds for counts."""

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUS_CLASSES = {number: f"{number}xx" for number in range(1, 6)}
OTHER_LABEL = "other"
"""Label for values that callers make up, so that they cannot create series."""


class MetricKind(StrEnum):
    """Prometheus metric types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Aggregation(StrEnum):
    """How the gauges of several processes are combined."""

    SUM = "sum"
    MAX = "max"
    LATEST = "latest"


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
    """Durations of HTTP requests by method, route template and status class; errors by type; requests in progress."""

    seconds: Histogram = field(default_factory=lambda: Histogram(DURATION_BOUNDS))
    errors: Counter[Labels] = field(default_factory=Counter)
    in_progress: int = 0

    def count_request(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count a request. `route` is the template, or None if no route matched."""
        self.seconds.observe(
            seconds,
            method if method in HTTP_METHODS else OTHER_LABEL,
            route or OTHER_LABEL,
            STATUS_CLASSES.get(status // 100, OTHER_LABEL),
        )


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric with a value for each combination of labels.

    `bounds` are those of a histogram. `measured_at` (seconds since the epoch) is for gauges with `Aggregation.LATEST`.
    """

    name: str
    kind: MetricKind
    help: str
    samples: Mapping[Labels, SampleValue]
    labels: Labels = ()
    aggregation: Aggregation = Aggregation.SUM
    bounds: tuple[float, ...] = ()
    measured_at: float = 0.0


def counter(name: str, help_: str, samples: Samples, *labels: str) -> MetricFamily:
    """Build a counter, named without `_total`."""
    return MetricFamily(name, MetricKind.COUNTER, help_, _copy_samples(samples), labels)


def gauge(
    name: str,
    help_: str,
    samples: Samples,
    *labels: str,
    aggregation: Aggregation = Aggregation.SUM,
    measured_at: float = 0.0,
) -> MetricFamily:
    """Build a gauge."""
    return MetricFamily(
        name, MetricKind.GAUGE, help_, _copy_samples(samples), labels, aggregation, measured_at=measured_at
    )


def histogram(name: str, help_: str, values: Histogram, *labels: str) -> MetricFamily:
    """Build the family of a histogram."""
    samples = {key: list(counts) for key, counts in values.samples.items()}
    return MetricFamily(name, MetricKind.HISTOGRAM, help_, samples, labels, bounds=values.bounds)


def _copy_samples(samples: Samples) -> dict[Labels, SampleValue]:
    if not isinstance(samples, Mapping):
        return {(): float(samples)}
    return {(key,) if isinstance(key, str) else key: value for key, value in samples.items()}


def render_families(families: Iterable[MetricFamily], accept: str) -> tuple[bytes, str]:
    """Return the families as text and its content type, in the format that the `Accept` header prefers."""
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415 - see above

    encode, content_type = choose_encoder(accept)
    return encode(_PrometheusRegistry(families)), content_type


class _PrometheusRegistry:
    """The part of `CollectorRegistry` that renderers use."""

    def __init__(self, families: Iterable[MetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        return map(_to_prometheus, self._families)


def _to_prometheus(family: MetricFamily) -> Any:
    from prometheus_client import core  # noqa: PLC0415 - see above

    kinds: dict[MetricKind, Any] = {
        MetricKind.COUNTER: core.CounterMetricFamily,
        MetricKind.GAUGE: core.GaugeMetricFamily,
        MetricKind.HISTOGRAM: core.HistogramMetricFamily,
    }
    metric = kinds[family.kind](family.name, family.help, labels=family.labels)
    bounds = [*map(str, family.bounds), "+Inf"]
    for labels, value in family.samples.items():
        if isinstance(value, list):
            metric.add_metric(labels, list(zip(bounds, accumulate(value[:-1]), strict=True)), value[-1])
        else:
            metric.add_metric(labels, value)
    return metric
