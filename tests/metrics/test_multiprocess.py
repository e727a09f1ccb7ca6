"""Metrics of several processes, combined."""

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

from shopassist.metrics import (
    ENDED_PROCESSES_FILE,
    Histogram,
    MetricFamily,
    RequestMetrics,
    SharedMetrics,
    counter,
    family_to_row,
    gauge,
    histogram,
    merge_families,
    render_families,
    row_to_family,
)


def build_families(count: float, size: float = 1, measured_at: float = 0) -> list[MetricFamily]:
    """Return families of a process: a counter, gauges, and a gauge and histogram of `count`."""
    waits = Histogram((1.0, 2.0))
    waits.observe(count, "a")
    return [
        counter("things", "Things.", {("a",): count}, "kind"),
        gauge("size", "Size.", size),
        gauge("oldest", "Oldest.", size, aggregation="max"),
        gauge("outcome", "Outcome.", count, aggregation="latest", measured_at=measured_at),
        histogram("wait", "Waits.", waits, "kind"),
    ]


def values(families: list[MetricFamily]) -> dict[str, object]:
    """Return the only sample of each family."""
    return {family.name: next(iter(family.samples.values())) for family in families}


def process_that_ended(folder: Path, count: float) -> Path:
    """Return the file of a process that published its metrics and ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = set(folder.glob("*.json"))
    SharedMetrics(folder).publish(build_families(count), time.monotonic())
    [file] = set(folder.glob(f"{os.getpid()}-*.json")) - others
    return file.rename(folder / f"{ended.pid}-{file.name.partition('-')[2]}")


def test_processes_are_put_together_as_each_family_says() -> None:
    """Counters and histograms are added; gauges by their aggregation."""
    together = values(
        merge_families([build_families(1.5, size=5, measured_at=20), build_families(4, size=3, measured_at=10)])
    )
    assert together == {"things": 5.5, "size": 8, "oldest": 5, "outcome": 1.5, "wait": [0.0, 1.0, 1.0, 5.5]}


def test_families_survive_being_written() -> None:
    """JSON keeps all values, also infinite and very small ones."""
    families = [*build_families(3), gauge("odd", "Odd.", {("x", "y"): math.inf, ("", "z"): 1e-300}, "a", "b")]
    assert [row_to_family(json.loads(json.dumps(family_to_row(family)))) for family in families] == families


def test_values_fall_under_the_bounds_that_include_them() -> None:
    """Bounds are inclusive, and rendered counts are cumulative."""
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
    """Labels with quotes, backslashes and line ends are valid in both formats."""
    odd = 'a"b\\c\nd'
    text, content_type = render_families([counter("odd", "Odd.", {(odd,): 1}, "name")], accept)
    assert content_type.startswith(accept.partition(";")[0] or "text/plain")
    parse = openmetrics if accept else text_string_to_metric_families
    [family] = parse(text.decode())
    assert family.samples[0].labels == {"name": odd}


def test_what_ended_processes_counted_stays_and_their_gauges_vanish(tmp_path: Path) -> None:
    """Counters never decrease when a process ends, and its file is removed."""
    alive = SharedMetrics(tmp_path)
    files = [process_that_ended(tmp_path, 10), process_that_ended(tmp_path, 100)]
    for _ in range(3):
        alive.publish(build_families(1, size=5), time.monotonic())
        together = values(alive.gather())
        assert (together["things"], together["size"]) == (111, 5)
    assert not any(file.exists() for file in files)
    process_that_ended(tmp_path, 1000)
    assert values(SharedMetrics(tmp_path).gather())["things"] == 1111


def test_a_process_that_dies_while_it_adds_up_the_ended_counts_nothing_twice(tmp_path: Path) -> None:
    """The next process removes a file that was already added to the ended processes."""
    file = process_that_ended(tmp_path, 10)
    content = file.read_bytes()
    shared = SharedMetrics(tmp_path)
    assert values(shared.gather())["things"] == 10
    file.write_bytes(content)
    assert json.loads((tmp_path / ENDED_PROCESSES_FILE).read_text())["names"] == [file.name]
    assert values(shared.gather())["things"] == 10
    assert not file.exists()


def test_a_process_that_hangs_shows_no_gauges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its counters are still shown, and counted once when it continues."""
    shared = SharedMetrics(tmp_path)
    shared.publish(build_families(7), time.monotonic())
    monkeypatch.setattr("shopassist.metrics.GAUGE_LIFETIME_SECONDS", -1.0)
    assert set(values(shared.gather())) == {"things", "wait"}
    monkeypatch.undo()
    shared.publish(build_families(8), time.monotonic())
    assert values(shared.gather())["things"] == 8


def test_what_was_seen_earlier_is_not_written_later(tmp_path: Path) -> None:
    """Counters of a process never decrease, whatever the order of its threads."""
    shared, now = SharedMetrics(tmp_path), time.monotonic()
    shared.publish(build_families(8), now)
    shared.publish(build_families(7), now - 1)
    assert values(shared.gather())["things"] == 8


def test_callers_do_not_decide_how_many_series_there_are() -> None:
    """Unknown methods and paths share one series."""
    figures = RequestMetrics()
    for number in range(100):
        figures.count_request(f"X{number}", None, 404, 0.001)
    figures.count_request("GET", "/api/admin/credits/{user_id}/adjust", 200, 0.001)
    assert set(figures.seconds.samples) == {
        ("other", "other", "4xx"),
        ("GET", "/api/admin/credits/{user_id}/adjust", "2xx"),
    }


def test_counting_a_request_costs_microseconds() -> None:
    """The limit is 20 µs, for busy machines; it takes less than one."""
    figures = RequestMetrics()
    calls = 10_000
    took = min(
        timeit.repeat(lambda: figures.count_request("GET", "/api/user/credits", 200, 0.002), number=calls, repeat=5)
    )
    assert took / calls < 20e-6
