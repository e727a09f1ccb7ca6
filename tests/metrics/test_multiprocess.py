"""Figures of several processes as those of one service."""

import json
import math
import os
import subprocess
import sys
import time
import timeit
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from shopassist.metrics.multiprocess import (
    ENDED_PROCESSES_FILE,
    SharedMetrics,
    family_to_row,
    merge_families,
    row_to_family,
)
from shopassist.metrics.registry import (
    Aggregation,
    Histogram,
    MetricFamily,
    RequestMetrics,
    counter,
    gauge,
    histogram,
    render_families,
)


def own(count: float, size: float = 1, seen: float = 0) -> list[MetricFamily]:
    """The figures of a process that counted `count`, is `size` large, and looked at something at `seen`."""
    waits = Histogram((1.0, 2.0))
    waits.observe(count, "a")
    return [
        counter("things", "Things.", {("a",): count}, "kind"),
        gauge("size", "Size.", size),
        gauge("oldest", "Oldest.", size, aggregation=Aggregation.MAX),
        gauge("outcome", "Outcome.", count, aggregation=Aggregation.LATEST, measured_at=seen),
        histogram("wait", "Waits.", waits, "kind"),
    ]


def values(families: list[MetricFamily]) -> dict[str, object]:
    """The only sample of each family."""
    return {family.name: next(iter(family.samples.values())) for family in families}


def process_that_ended(folder: Path, count: float) -> Path:
    """The file of a process that published its figures and is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = set(folder.glob("*.json"))
    SharedMetrics(folder).publish(own(count), time.monotonic())
    [file] = set(folder.glob(f"{os.getpid()}-*.json")) - others
    return file.rename(folder / f"{ended.pid}-{file.name.partition('-')[2]}")


def test_processes_are_put_together_as_each_family_says() -> None:
    """Counts and histograms are added; gauges are added, or the largest or the latest of them counts."""
    together = values(merge_families([own(1.5, size=5, seen=20), own(4, size=3, seen=10)]))
    assert together == {"things": 5.5, "size": 8, "oldest": 5, "outcome": 1.5, "wait": [0.0, 1.0, 1.0, 5.5]}


def test_families_survive_being_written() -> None:
    """What one process writes another reads, down to infinite and very small numbers."""
    families = [*own(3), gauge("odd", "Odd.", {("x", "y"): math.inf, ("", "z"): 1e-300}, "a", "b")]
    assert [row_to_family(json.loads(json.dumps(family_to_row(family)))) for family in families] == families


def test_values_fall_under_the_bounds_that_include_them() -> None:
    """A value at a bound is within it, as Prometheus' `le` says; counts are cumulative in what is shown."""
    waits = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        waits.observe(value)
    text, _ = render_families([histogram("wait_seconds", "Waits.", waits)], "")
    [family] = text_string_to_metric_families(text.decode())
    assert {sample.labels.get("le", sample.name): sample.value for sample in family.samples} == {
        "1.0": 2,
        "2.0": 3,
        "+Inf": 4,
        "wait_seconds_count": 4,
        "wait_seconds_sum": 12,
    }


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_labels_are_escaped(accept: str) -> None:
    """Quotes, backslashes and line ends in a label break neither format."""
    odd = 'a"b\\c\nd'
    text, content_type = render_families([counter("odd", "Odd.", {(odd,): 1}, "name")], accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    parse = openmetrics if accept else text_string_to_metric_families
    [family] = parse(text.decode())
    assert family.samples[0].labels == {"name": odd}


def test_what_ended_processes_counted_stays_and_their_gauges_vanish(tmp_path: Path) -> None:
    """The sums never go down when a process dies, however often they are asked for, and its file is gone."""
    alive = SharedMetrics(tmp_path)
    files = [process_that_ended(tmp_path, 10), process_that_ended(tmp_path, 100)]
    for _ in range(3):
        alive.publish(own(1, size=5), time.monotonic())
        together = values(alive.gather())
        assert (together["things"], together["size"]) == (111, 5)
    assert not any(file.exists() for file in files)
    process_that_ended(tmp_path, 1000)
    assert values(SharedMetrics(tmp_path).gather())["things"] == 1111


def test_a_process_that_dies_while_it_adds_up_the_ended_counts_nothing_twice(tmp_path: Path) -> None:
    """A file that was added to those of the ended, and not removed any more, is removed by the next who looks."""
    file = process_that_ended(tmp_path, 10)
    content = file.read_bytes()
    shared = SharedMetrics(tmp_path)
    assert values(shared.gather())["things"] == 10
    file.write_bytes(content)
    assert json.loads((tmp_path / ENDED_PROCESSES_FILE).read_text())["names"] == [file.name]
    assert values(shared.gather())["things"] == 10
    assert not file.exists()


def test_a_process_that_hangs_shows_no_gauges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it counted is shown all the same, and counted once when it goes on."""
    shared = SharedMetrics(tmp_path)
    shared.publish(own(7), time.monotonic())
    monkeypatch.setattr("shopassist.metrics.multiprocess.GAUGE_LIFETIME_SECONDS", -1.0)
    assert set(values(shared.gather())) == {"things", "wait"}
    monkeypatch.undo()
    shared.publish(own(8), time.monotonic())
    assert values(shared.gather())["things"] == 8


def test_what_was_seen_earlier_is_not_written_later(tmp_path: Path) -> None:
    """Whichever thread comes last: no count of a process goes down."""
    shared, now = SharedMetrics(tmp_path), time.monotonic()
    shared.publish(own(8), now)
    shared.publish(own(7), now - 1)
    assert values(shared.gather())["things"] == 8


def test_callers_do_not_decide_how_many_series_there_are() -> None:
    """Made-up methods and paths without a route share one series."""
    figures = RequestMetrics()
    for number in range(100):
        figures.count_request(f"X{number}", None, 404, 0.001)
    figures.count_request("GET", "/api/admin/credits/{user_id}/adjust", 200, 0.001)
    assert set(figures.seconds.samples) == {
        ("other", "other", "4xx"),
        ("GET", "/api/admin/credits/{user_id}/adjust", "2xx"),
    }


def test_counting_a_request_costs_microseconds() -> None:
    """At most 20 of them, on a machine that is busy with other things: it takes less than one."""
    figures = RequestMetrics()
    calls = 10_000
    took = min(
        timeit.repeat(lambda: figures.count_request("GET", "/api/user/credits", 200, 0.002), number=calls, repeat=5)
    )
    assert took / calls < 20e-6
