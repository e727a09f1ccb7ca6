"""Every field that the code logs is on the allow-list, or it would be dropped silently."""

import ast
from collections.abc import Iterator
from pathlib import Path

from shopassist.logging import ALLOWED_FIELDS

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = [PROJECT / "containers.py", *sorted((PROJECT / "shopassist").rglob("*.py"))]
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "bind", "bind_contextvars"}


def find_log_calls(source: str) -> Iterator[ast.Call]:
    """Yield the calls of loggers and of structlog's context variables."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOG_METHODS:
            owner = ast.unparse(node.func.value)
            if "log" in owner:
                yield node


def test_logged_fields_are_allowed() -> None:
    """Fields are given as keyword arguments with names from the allow-list."""
    found = {
        f"{path.relative_to(PROJECT)}:{call.lineno} {keyword.arg}"
        for path in SOURCES
        for call in find_log_calls(path.read_text())
        for keyword in call.keywords
        if keyword.arg not in ALLOWED_FIELDS
    }
    assert found == set()


def test_a_field_that_is_not_allowed_is_found() -> None:
    """The scan sees the fields of loggers and of context variables."""
    source = 'logger.info("x", secret=1)\nstructlog.contextvars.bind_contextvars(user=2)\nother.info(a=3)'
    assert [call.keywords[0].arg for call in find_log_calls(source)] == ["secret", "user"]
