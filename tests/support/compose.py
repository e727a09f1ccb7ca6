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
    """All of it, with variables as they are written."""
    read: dict[str, Any] = YAML(typ="safe").load((PROJECT / "compose.yaml").read_text())
    return read


def services(profile: str | None) -> dict[str, Any]:
    """The services of a profile, or those that always run."""
    wanted = [] if profile is None else [profile]
    return {name: part for name, part in compose()["services"].items() if part.get("profiles", []) == wanted}


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its variables filled in. Raises `KeyError` for one that must be set and is not."""

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
