"""Opaque keyset cursors and the `Link` header of the next page."""

import base64
import binascii
from collections.abc import Sequence
from typing import TypeVar

from fastapi import Request, Response

from shopassist.errors import InvalidInputError
from shopassist.text import validate_text

Row = TypeVar("Row")

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
        url = request.url.include_query_params(cursor=encode_cursor(str(getattr(page[-1], key))))
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    return page
