"""Comparison of two implementations, measured alternately, and the resulting figures."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.table import Table

from benchmarks.workers import Sample

Measure = Callable[[float], Sample]
Value = Callable[[Sample, Sample], float]


def get_rate_ratio(a: Sample, b: Sample) -> float:
    """Return the ratio of operations per second."""
    return a.rate / b.rate


def get_latency_ratio(a: Sample, b: Sample) -> float:
    """Return the ratio of median latencies."""
    return a.p50 / b.p50


def get_tail_ratio(a: Sample, _: Sample) -> float:
    """Return the ratio of the 99th percentile to the median."""
    return a.p99 / a.p50


@dataclass(frozen=True, slots=True)
class Comparison:
    """A compared with B; `reach` is the minimum of the value, or its maximum with `at_most`.

    Both run for `settling_seconds` before they are measured.
    """

    name: str
    a: Measure
    b: Measure
    reach: float
    value: Value = get_rate_ratio
    at_most: bool = False
    settling_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """Result of a comparison: the median of the rounds' values."""

    name: str
    value: float
    reach: float
    holds: bool
    at_most: bool
    sides: tuple[list[Sample], list[Sample]]
    lowest: float
    highest: float
    latency: bool


def compare(comparison: Comparison, rounds: int, seconds: float) -> Figure:
    """Measure A and B alternately, in the opposite order each round."""
    if comparison.settling_seconds:
        comparison.a(comparison.settling_seconds)
        comparison.b(comparison.settling_seconds)
    pairs: list[tuple[Sample, Sample]] = []
    for turn in range(rounds):
        if turn % 2:
            b, a = comparison.b(seconds), comparison.a(seconds)
        else:
            a, b = comparison.a(seconds), comparison.b(seconds)
        pairs.append((a, b))
    values = [comparison.value(a, b) for a, b in pairs]
    value = statistics.median(values)
    if any(sample.failed for pair in pairs for sample in pair):
        raise RuntimeError(f"Requests failed in: {comparison.name}.")
    return Figure(
        comparison.name,
        round(value, 3),
        comparison.reach,
        value <= comparison.reach if comparison.at_most else value >= comparison.reach,
        comparison.at_most,
        ([a for a, _ in pairs], [b for _, b in pairs]),
        min(values),
        max(values),
        comparison.value is not get_rate_ratio,
    )


def build_table(figures: Iterable[Figure], title: str) -> Table:
    """Return the figures as a table."""
    table = Table(title=title, caption="CPU: µs an operation of the process that serves (for pgbench: its own).")
    table.add_column("A ÷ B")
    for heading in ("A", "B", "ratio", "rounds", "reach", "holds", "CPU A", "CPU B", "client CPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figure in figures:
        a, b = figure.sides
        table.add_row(
            figure.name,
            *(format_value(side, latency=figure.latency) for side in (a, b)),
            f"{figure.value:.2f}",
            f"{figure.lowest:.2f} to {figure.highest:.2f}",
            f"{'≤' if figure.at_most else '≥'} {figure.reach:g}",
            "yes" if figure.holds else "NO",
            *(f"{statistics.median(sample.cpu for sample in side):.0f}" for side in (a, b)),
            f"{1e6 * statistics.median(s.client_cpu_seconds / s.operations for s in a):.0f}",
        )
    return table


def format_value(side: list[Sample], *, latency: bool) -> str:
    """Return the median rate, or the median latency, of A or B."""
    if latency:
        return f"{1000 * statistics.median(sample.p50 for sample in side):.2f} ms"
    return f"{statistics.median(sample.rate for sample in side):,.0f}/s"
