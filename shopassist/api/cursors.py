"""Keyset cursors: opaque to clients, the last key of the page before for us."""

import base64
import binascii

from fastapi import Request

from shopassist.errors import InvalidInputError
from shopassist.models.text import storable


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
        raise InvalidInputError("cursor is not one that this API gave out.") from None


def next_page(request: Request, key: str) -> str:
    """The `Link` header that leads to the page behind `key`."""
    url = request.url.include_query_params(cursor=write_cursor(key))
    return f'<{url.path}?{url.query}>; rel="next"'
