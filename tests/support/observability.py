"""Configuration of Prometheus and Grafana: expressions, and the metrics in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

OBSERVE = Path(__file__).resolve().parents[2] / "deploy" / "observe"
PROMETHEUS_OWN = {"up", "ALERTS"}
"""Metrics that Prometheus adds for every target."""

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTOR = re.compile(r"\{[^}]*\}")
RANGE = re.compile(r"\[[^\]]*\]")
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
NAME = re.compile(r"(?<![\w$:])[a-zA-Z_:][\w:]*(?!\s*\()(?![\w:])")
KEYWORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "bool", "offset", "group_left", "group_right"}


def metric_names(expression: str) -> set[str]:
    """Return the metrics in a PromQL expression."""
    rest = expression
    for pattern in (STRING, SELECTOR, RANGE):
        rest = pattern.sub(" ", rest)
    rest = GROUPING.sub(" ", rest)
    return set(NAME.findall(rest)) - KEYWORDS


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    content = YAML(typ="safe").load((OBSERVE / "rules.yml").read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    content: dict[str, Any] = json.loads((OBSERVE / "dashboards" / "shopassist.json").read_text())
    return content


def expressions() -> Iterator[str]:
    """Return every expression of the rules and of the dashboard."""
    yield from (rule["expr"] for rule in rules())
    shown = dashboard()
    yield from (target["expr"] for panel in shown["panels"] for target in panel.get("targets", []))
    for variable in shown["templating"]["list"]:
        yield variable["definition"].removeprefix("label_values(").partition(",")[0]
    yield from (annotation["expr"] for annotation in shown["annotations"]["list"])
