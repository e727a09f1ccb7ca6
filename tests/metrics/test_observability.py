"""The dashboard, the alert rules and the runbook match the metrics of a real server."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from tests.support.observability import OBSERVE, PROMETHEUS_OWN, dashboard, expressions, metric_names, rules
from tests.support.servers import PROJECT, TestServer

RUNBOOK = PROJECT / "docs" / "runbook.md"
PROMTOOL = PROJECT / "build" / "tools" / "usr" / "bin" / "promtool"

PATIENCE_SECONDS = 180


def shown(server: TestServer) -> dict[str, float]:
    """Return every sample of `/metrics` by its name and sorted labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        f"{sample.name}{json.dumps(dict(sorted(sample.labels.items())))}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def wait_for(server: TestServer, name: str, value: float, seconds: float = PATIENCE_SECONDS) -> dict[str, float]:
    """Wait until a metric has a value; return all metrics."""
    deadline = time.monotonic() + seconds
    while (figures := shown(server)).get(name) != value:
        assert time.monotonic() < deadline, (name, figures.get(name))
        time.sleep(0.2)
    return figures


class RealServer(TestServer):
    """A server as it is started in production."""

    arguments = ("-m", "shopassist", "serve")


@pytest.fixture
def workers(tmp_path: Path, database_url: str) -> Iterator[TestServer]:
    """Run a server with two worker processes."""
    (tmp_path / "run").mkdir()
    server = RealServer(tmp_path, database_url, WORKERS="2", SAMPLE_CATALOGUE="true", TMPDIR=str(tmp_path / "run"))
    try:
        yield server.wait_until_ready(PATIENCE_SECONDS)
    finally:
        server.stop()


def worker_processes(server: TestServer) -> list[int]:
    """Return the process ids of workers that publish metrics."""
    folder = Path(str(server.log.parent / "run"))
    return [int(file.name.partition("-")[0]) for file in folder.glob("shopassist-*/[0-9]*.json")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_are_one_service_also_when_one_is_killed(workers: TestServer) -> None:
    """Each scrape shows both workers; counters of a killed worker stay, its gauges disappear.

    The shared folder is removed with the server.
    """
    processes = "shopassist_processes{}"
    starts = "shopassist_process_starts_total{}"
    wait_for(workers, processes, 2)
    for number in range(30):
        assert workers.ask(f"phone under ₹{20_000 + number}", f"guest-{number}")[0] == 200
    settled = 'shopassist_credit_holds_total{"event": "settled"}'
    asked = 'shopassist_http_request_duration_seconds_count{"method": "POST", "route": "/api/query", "status": "2xx"}'
    before = wait_for(workers, settled, 30)
    assert before[asked] == 30
    assert (before[starts], before['shopassist_database_breaker{"state": "closed"}']) == (2, 2)
    victim = worker_processes(workers)[0]
    os.kill(victim, signal.SIGKILL)
    after = wait_for(workers, starts, 3)
    assert after[processes] == 2
    assert after[settled] == 30
    assert after['shopassist_database_breaker{"state": "closed"}'] == 2
    wait_for(workers, "shopassist_scheduler_leader{}", 1)
    folder = workers.log.parent / "run"
    assert list(folder.iterdir())
    assert workers.stop() == 0
    assert list(folder.iterdir()) == []


def test_dashboard_and_rules_name_only_what_a_server_shows(tmp_path: Path, database_url: str) -> None:
    """A server shows every metric of an expression, after some traffic and during a rollout."""
    server = TestServer(tmp_path, database_url, STORAGE="rollout", ROLLOUT_PERCENT="100", ROLLOUT_SHADOW="true")
    server.wait_until_ready(PATIENCE_SECONDS)
    try:
        server.ask("a phone", "g2wsht")
        server.ask("a phone", "g2wsht")
        server.call("GET", "/api/user/credits")
        wait_for(server, 'shopassist_job_runs_total{"name": "verify_ledger", "outcome": "done"}', 1)
        names = {sample.partition("{")[0] for sample in shown(server)} | PROMETHEUS_OWN
    finally:
        server.stop()
    # No Redis listens on this address; the metrics of the shared cache are shown without a rollout.
    server = TestServer(tmp_path, database_url, REDIS_URL="redis://127.0.0.1:1", SECRET_KEY="k" * 32)
    try:
        server.wait_until_ready(PATIENCE_SECONDS)
        names |= {sample.partition("{")[0] for sample in shown(server)}
    finally:
        server.stop()
    wanted = {name for expression in expressions() for name in metric_names(expression)}
    assert len(wanted) > 20
    assert wanted - names == set()


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (a) (rate(x_total{b="c d"}[5m])) / on (e) group_left (f) max(y)', {"x_total", "y"}),
        ("time() - max by (name) (z) > 2 * 86400 unless on () absent(w)", {"z", "w"}),
        (
            'histogram_quantile(0.9, sum by (le) (rate(v_bucket{r=~"a|b"}[$__rate_interval]))) or vector(0)',
            {"v_bucket"},
        ),
    ],
)
def test_names_are_found_in_expressions(expression: str, names: set[str]) -> None:
    """Functions, labels, strings, durations and keywords are not metrics."""
    assert metric_names(expression) == names


def test_each_alert_has_its_section_in_the_runbook() -> None:
    """Each alert links to its section, each section has an alert, and says what to do."""
    headings = re.findall(r"^## (Shopassist\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}
    sections = re.split(r"^## Shopassist\w+$", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert all(part in section for section in sections), part


def test_each_alert_is_tested() -> None:
    """`rules_test.yml` expects every alert to fire once."""
    expected = (OBSERVE / "rules_test.yml").read_text()
    assert [rule["alert"] for rule in rules() if f'"{rule["alert"]}"' not in expected] == []


def test_the_dashboard_is_whole() -> None:
    """Panels have unique ids, do not overlap, and use the provisioned data source."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert all(target["datasource"]["uid"] == "prometheus" for target in panel.get("targets", []))
    assert "uid: prometheus" in (OBSERVE / "provisioning" / "datasource.yml").read_text()


@pytest.mark.external
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "--lint=all", "--lint-fatal", "rules.yml"],
        ["test", "rules", "rules_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(arguments: list[str]) -> None:
    """Configuration and rules are valid, and the tests of the rules pass."""
    promtool = shutil.which("promtool") or PROMTOOL
    checked = subprocess.run([promtool, *arguments], cwd=OBSERVE, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.external
def test_promtool_finds_no_fault_in_what_is_shown(tmp_path: Path, database_url: str) -> None:
    """Names and help texts follow the conventions of Prometheus."""
    server = TestServer(tmp_path, database_url).wait_until_ready(PATIENCE_SECONDS)
    try:
        server.ask("a phone", "g2wsht")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
            text = answer.read()
    finally:
        server.stop()
    checked = subprocess.run(
        [shutil.which("promtool") or PROMTOOL, "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()


def test_compose_shows_the_dashboard_on_this_machine_alone() -> None:
    """Prometheus has no public port, Grafana listens on loopback, images are pinned, and mounted files exist."""
    compose = YAML(typ="safe").load((PROJECT / "compose.yaml").read_text())
    observing = {name: part for name, part in compose["services"].items() if part.get("profiles") == ["observe"]}
    assert set(observing) == {"prometheus", "grafana"}
    assert "ports" not in observing["prometheus"]
    assert [port.partition(":")[0] for port in observing["grafana"]["ports"]] == ["127.0.0.1"]
    assert compose["networks"]["monitoring"]["internal"]
    assert observing["prometheus"]["networks"] == ["monitoring"]
    assert "monitoring" in compose["services"]["app"]["networks"]
    for part in observing.values():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", part["image"])
        sources = [volume.partition(":")[0] for volume in part["volumes"]]
        assert all((PROJECT / source).exists() for source in sources if source.startswith("."))
