"""ASGI middleware that reads request bodies and refuses large, compressed or deeply nested ones."""

import asyncio
import re
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopassist.api.error_handlers import build_validation_response, handle_domain_error
from shopassist.errors import BodyEncodedError, BodyTooLargeError, ShopAssistError

MAX_BODY_BYTES = 64 * 1024
MAX_JSON_DEPTH = 20
MAX_LENGTH_DIGITS = 10
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
"""How long and how much a client may go on sending behind a refusal, so that it gets to read it before the connection
is closed."""

METHODS_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
NON_BRACKET_BYTES = bytes(byte for byte in range(256) if byte not in b"[]{}")
BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


class BodyLimit:
    """Refuses bodies that are too large, compressed or too deep."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length, encodings = parse_framing(scope)
        if length is None and scope["method"] in METHODS_WITHOUT_BODY:
            await self.app(scope, receive, send)
            return
        if encodings:
            await send_refusal(BodyEncodedError(), scope, receive, send)
            return
        try:
            body = await read_body(receive, length or 0)
        except ClientDisconnect:
            return  # half a body may look like a whole one
        except BodyTooLargeError as error:
            await send_refusal(error, scope, receive, send)
            return
        if is_too_deep(body):
            answer = build_validation_response(
                [{"loc": ["body"], "msg": f"must not be nested deeper than {MAX_JSON_DEPTH}", "type": "too_deep"}]
            )
            await answer(scope, receive, send)
            return
        await self.app(scope, replay_body(body, receive), send)


def parse_framing(scope: Scope) -> tuple[int | None, list[bytes]]:
    """How many bytes are announced (0 where only the end will tell), or None without a body; and how it is encoded."""
    length: int | None = None
    encodings = []
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = max(
                length or 0, int(value) if value.isdigit() and len(value) < MAX_LENGTH_DIGITS else MAX_BODY_BYTES + 1
            )
        elif name == b"transfer-encoding":
            length = length or 0
            encodings += [value] if value.strip().lower() != b"chunked" else []
        elif name == b"content-encoding":
            encodings += [value] if value.strip().lower() not in {b"", b"identity"} else []
    return length, encodings


async def read_body(receive: Receive, announced: int) -> bytes:
    """The body. Raises `BodyTooLargeError` as soon as there is more than may be, and `ClientDisconnect`."""
    parts: list[bytes] = []
    size, more = announced, True
    while more:
        if size > MAX_BODY_BYTES:
            raise BodyTooLargeError
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size = sum(map(len, parts))
        more = message.get("more_body", False)
    if size > MAX_BODY_BYTES:
        raise BodyTooLargeError
    return b"".join(parts)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then what else there is to receive."""
    given = False

    async def give() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


async def send_refusal(error: ShopAssistError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer at once and close the connection a little later: what is unread would otherwise reset it too soon."""
    answer = await handle_domain_error(Request(scope), error)
    answer.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            read, message = 0, await receive()
            while message.get("more_body", False) and read < LINGER_BYTES:
                read += len(message.get("body", b""))
                message = await receive()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def is_too_deep(body: bytes) -> bool:
    """Whether the JSON in `body` is nested deeper than may be; what is no JSON may be called either.

    Each round takes away what is innermost. All of it runs in C, so that the largest body takes a millisecond or two.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return False
    brackets = JSON_STRING.sub(b"", body).translate(BRACES_TO_BRACKETS, NON_BRACKET_BYTES)
    for _ in range(MAX_JSON_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
