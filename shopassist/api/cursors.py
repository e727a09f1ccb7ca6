"""Keyset cursors: opaque to clients, the last key of the page before for us."""

import base64
import binascii

from fastapi import Request

from shopassist.errors import InvalidInputError
from shopassist.models.text import storable

LARGEST_ID = 2**63 - 1
FOREIGN = "cursor is not one that this API gave out."


def write_cursor(key: str) -> str:
    """The cursor of a page that begins behind `key`."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> str | None:
    """The key in a cursor. Raises `InvalidInputError` for what `write_cursor` did not write."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return storable(raw.decode())
    except (binascii.Error, ValueError):
        raise InvalidInputError(FOREIGN) from None


def read_id(cursor: str | None) -> int | None:
    """The id of a row in a cursor. Raises `InvalidInputError` for what this API did not give out."""
    key = read_cursor(cursor)
    if key is None:
        return None
    if not (key.isascii() and key.isdecimal() and int(key) <= LARGEST_ID):
        raise InvalidInputError(FOREIGN)
    return int(key)


def next_page(request: Request, key: str) -> str:
    """The `Link` header that leads to the page behind `key`."""
    url = request.url.include_query_params(cursor=write_cursor(key))
    return f'<{url.path}?{url.query}>; rel="next"'
