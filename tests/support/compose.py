"""`compose.yaml` as Docker Compose reads it."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from tests.support.servers import PROJECT

VARIABLE = re.compile(r"\$\{(\w+)(?::([-?+])([^{}]*))?\}")


@cache
def compose() -> dict[str, Any]:
    """Return the parsed file, with variables as they are written."""
    read: dict[str, Any] = YAML(typ="safe").load((PROJECT / "compose.yaml").read_text())
    return read


def services(profile: str | None) -> dict[str, Any]:
    """Return the services of a profile, or those without one."""
    wanted = [] if profile is None else [profile]
    return {name: part for name, part in compose()["services"].items() if part.get("profiles", []) == wanted}


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Return `text` with its variables replaced. Raises `KeyError` for a required variable that is not set."""

    def value(match: re.Match[str]) -> str:
        name, kind, other = match.groups()
        given = variables.get(name, "")
        if kind == "+":
            return other if given else ""
        if kind == "-":
            return given or other
        return given if kind is None else given or variables[name]

    while VARIABLE.search(text):
        text = VARIABLE.sub(value, text)
    return text
