"""How an answer says that it may be old: it was read at the replica while the primary was gone."""

from typing import Any

from starlette.datastructures import MutableHeaders

from shopassist.db.freshness import Freshness

MAY_BE_STALE: dict[str, Any] = {
    "headers": {
        "X-Data-Stale": {
            "description": "`true` while only reading is possible: the answer may be old.",
            "schema": {"type": "string"},
        },
        "X-Data-As-Of": {
            "description": "With `X-Data-Stale`, where it is known: nothing from before this instant is missing.",
            "schema": {"type": "string", "format": "date-time"},
        },
    }
}
"""For the documentation of responses that may come from the replica."""


def mark_stale(headers: MutableHeaders, noted: Freshness) -> None:
    """Say that the answer may be old, and, where that is known, which instant it is true of."""
    headers["X-Data-Stale"] = "true"
    headers["Cache-Control"] = "no-store"
    if noted.as_of is not None:
        headers["X-Data-As-Of"] = noted.as_of.isoformat(timespec="milliseconds")
