"""Two ways of doing a thing, measured in turn, and the figures that come of it."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.table import Table

from benchmarks.workers import Sample

Measure = Callable[[float], Sample]
Value = Callable[[Sample, Sample], float]


def rates(a: Sample, b: Sample) -> float:
    """How many times as many operations a second."""
    return a.rate / b.rate


def latencies(a: Sample, b: Sample) -> float:
    """How many times the median latency."""
    return a.p50 / b.p50


def spread(a: Sample, _: Sample) -> float:
    """The slowest hundredth beside the median."""
    return a.p99 / a.p50


@dataclass(frozen=True, slots=True)
class Comparison:
    """A beside B; `reach` is what the value must be at least, or `at_most`.

    Both run for `settling_seconds` before they are measured.
    """

    name: str
    a: Measure
    b: Measure
    reach: float
    value: Value = rates
    at_most: bool = False
    settling_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """What a comparison came to: the median of the rounds' values."""

    name: str
    value: float
    reach: float
    holds: bool
    at_most: bool
    sides: tuple[list[Sample], list[Sample]]
    lowest: float
    highest: float
    latency: bool


def compared(comparison: Comparison, rounds: int, seconds: float) -> Figure:
    """Measure A and B in turn, the first of a round being the second of the next."""
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
        comparison.value is not rates,
    )


def table_of(figures: Iterable[Figure], title: str) -> Table:
    """The figures as people read them."""
    table = Table(title=title, caption="CPU: µs an operation of the process that serves (for pgbench: its own).")
    table.add_column("A ÷ B")
    for heading in ("A", "B", "ratio", "rounds", "reach", "holds", "CPU A", "CPU B", "client CPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figure in figures:
        a, b = figure.sides
        table.add_row(
            figure.name,
            *(shown(side, latency=figure.latency) for side in (a, b)),
            f"{figure.value:.2f}",
            f"{figure.lowest:.2f} to {figure.highest:.2f}",
            f"{'≤' if figure.at_most else '≥'} {figure.reach:g}",
            "yes" if figure.holds else "NO",
            *(f"{statistics.median(sample.cpu for sample in side):.0f}" for side in (a, b)),
            f"{1e6 * statistics.median(s.client_cpu_seconds / s.operations for s in a):.0f}",
        )
    return table


def shown(side: list[Sample], *, latency: bool) -> str:
    """The median rate of a side, or its median latency."""
    if latency:
        return f"{1000 * statistics.median(sample.p50 for sample in side):.2f} ms"
    return f"{statistics.median(sample.rate for sample in side):,.0f}/s"
