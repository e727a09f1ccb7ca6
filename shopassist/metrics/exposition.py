"""Render metric families in the Prometheus text format."""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from shopassist.metrics.registry import MetricFamily, MetricKind

INFINITY = float("inf")


class _FamilyCollector(Collector):
    def __init__(self, families: Iterable[MetricFamily]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from map(family_to_metric, self._families)


def family_to_metric(family: MetricFamily) -> Metric:
    """A family as the library has it."""
    if family.kind is MetricKind.HISTOGRAM:
        histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
        bounds = [str(bound) if bound < INFINITY else "+Inf" for bound in (*family.bounds, INFINITY)]
        for labels, value in family.samples.items():
            *counts, total = value if isinstance(value, list) else [value]
            histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return histogram
    kind = CounterMetricFamily if family.kind is MetricKind.COUNTER else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.labels)
    for labels, value in family.samples.items():
        if not isinstance(value, list):
            metric.add_metric(labels, value)
    return metric


def render_families(families: Iterable[MetricFamily], accept: str) -> tuple[bytes, str]:
    """The text of `families` and its content type, in the format that `accept` (an HTTP header) prefers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_FamilyCollector(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
