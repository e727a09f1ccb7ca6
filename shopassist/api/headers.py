"""Content negotiation, stale data, and pages of rows with their `Link` header."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request, Response

from shopassist.errors import InvalidInputError
from shopassist.text import validate_text

Row = TypeVar("Row")

MAX_LANGUAGES = 10


def is_preferred(accept: str, media_type: str) -> bool:
    """Return whether an `Accept` header prefers `media_type` to JSON (RFC 9110, section 12.5.1).

    Only types that it names count, `*/*` does not.
    """
    weights = _parse_weights(accept.lower())
    return weights.get(media_type, 0.0) > weights.get("application/json", 0.0)


def parse_languages(accept_language: str) -> list[str]:
    """Return the languages of an `Accept-Language` header by preference, without `*` and refused ones."""
    weights = {tag: weight for tag, weight in _parse_weights(accept_language).items() if tag not in {"", "*"}}
    preferred = sorted(weights, key=lambda tag: -weights[tag])
    return [tag for tag in preferred if weights[tag] > 0][:MAX_LANGUAGES]


def _parse_weights(header: str) -> dict[str, float]:
    """Return the weight of each value of a header; 0 if its weight is no number."""
    weights = {}
    for part in header.split(","):
        value, *parameters = (piece.strip() for piece in part.split(";"))
        given = next((parameter[2:] for parameter in parameters if parameter.lower().startswith("q=")), "1")
        try:
            weights[value] = float(given)
        except ValueError:
            weights[value] = 0.0
    return weights


STALE_RESPONSE: dict[str, Any] = {
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
"""Documentation of responses that may come from the replica."""


MAX_ROW_ID = 2**63 - 1
INVALID_CURSOR = "cursor is not one that this API gave out."


def encode_cursor(key: str) -> str:
    """Return the cursor of the page after `key`."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """Return the key in a cursor. Raises `InvalidInputError` for a malformed one."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return validate_text(raw.decode())
    except (binascii.Error, ValueError):
        raise InvalidInputError(INVALID_CURSOR) from None


def decode_id_cursor(cursor: str | None) -> int | None:
    """Return the row id in a cursor. Raises `InvalidInputError` for a malformed one."""
    key = decode_cursor(cursor)
    if key is None:
        return None
    if not (key.isascii() and key.isdecimal() and int(key) <= MAX_ROW_ID):
        raise InvalidInputError(INVALID_CURSOR)
    return int(key)


def cut_page(rows: Sequence[Row], limit: int, request: Request, response: Response, key: str = "id") -> list[Row]:
    """Return the first `limit` rows; if there are more, set the `Link` header of the page after the column `key`."""
    page = list(rows[:limit])
    if len(rows) > limit:
        # Relative to the request, since a proxy may have removed a prefix of its path.
        url = request.url.include_query_params(cursor=encode_cursor(str(getattr(page[-1], key))))
        response.headers["Link"] = f'<?{url.query}>; rel="next"'
    return page
