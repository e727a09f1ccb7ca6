"""ASGI middleware: allowed hosts; request ids, logs and traces; security headers; errors; limits of request bodies."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from uuid import uuid4

import structlog
from opentelemetry.trace import format_trace_id
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopassist.api.dependencies import get_peer_address
from shopassist.api.error_handlers import build_validation_response, handle_domain_error, handle_unexpected_error
from shopassist.api.protocol import REFUSED_WITH
from shopassist.db.resilience import Freshness, limit_time, track_freshness
from shopassist.errors import BodyEncodedError, BodyTooLargeError, ClientGoneError, HostNotAllowedError, ShopAssistError
from shopassist.identity.caller import ClientNetworks
from shopassist.identity.rate_limits import WINDOW_SECONDS
from shopassist.metrics import RequestMetrics
from shopassist.tracing import describe_request, request_span

logger = structlog.get_logger(__name__)


class Refusals:
    """Refuses the requests for which `find_error` returns an error."""

    def __init__(self, app: ASGIApp, find_error: Callable[[Scope], ShopAssistError | None]) -> None:
        self.app = app
        self.find_error = find_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self.find_error(scope)):
            response = await handle_domain_error(Request(scope), error)
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def check_host(allowed: Iterable[str], scope: Scope) -> HostNotAllowedError | None:
    """Return an error for other hosts, so that no link is ever built from a host name that a client made up.

    Names are in lower case; `*.name` allows all names below it. Probes and Prometheus call an instance by its address.
    """
    if scope["path"] in {"/health", "/metrics"} or scope["path"].startswith("/health/"):
        return None
    hosts = [value.decode("latin-1").lower() for header, value in scope["headers"] if header == b"host"]
    host = hosts[0] if len(hosts) == 1 else ""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].removesuffix(".")
    is_allowed = any(name == known or (known.startswith("*.") and name.endswith(known[1:])) for known in allowed)
    return None if is_allowed else HostNotAllowedError()


REQUEST_TIMEOUT_SECONDS = 45.0
"""Time limit of a request: the assistant's limit and some more. Known clients retry after 15 seconds."""

REQUEST_ID_PATTERN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives each request an id (the client's `X-Request-ID` or a new one), logs, counts and traces it."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        """Count requests in `metrics`."""
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # The server, which has the original scope, leaves out the body.
            scope = {**scope, "method": "GET"}
        client_id = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = client_id.decode() if REQUEST_ID_PATTERN.fullmatch(client_id) else uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        self.metrics.in_progress += 1
        began = time.perf_counter()
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if freshness.is_stale:
                    set_stale_headers(MutableHeaders(scope=message), freshness)
            await send(message)

        with request_span(scope["headers"], request_id) as span:
            if span:
                trace_id = format_trace_id(span.get_span_context().trace_id)
                structlog.contextvars.bind_contextvars(trace_id=trace_id)
            try:
                with limit_time(REQUEST_TIMEOUT_SECONDS), track_freshness() as freshness:
                    await self.app(scope, receive, send_with_headers)
                if status is None:  # The connection ended before there was anything to answer.
                    status = scope.get("state", {}).get(REFUSED_WITH, ClientGoneError.status)
            finally:
                status = status or ShopAssistError.status
                route = getattr(scope.get("route"), "path", None)
                seconds = time.perf_counter() - began
                self.metrics.in_progress -= 1
                self.metrics.count_request(method, route, status, seconds)
                milliseconds = round(1000 * seconds, 1)
                logger.info("request", method=method, route=route, status=status, milliseconds=milliseconds)
                if span:
                    describe_request(span, method, route, status)
                structlog.contextvars.clear_contextvars()


def set_stale_headers(headers: MutableHeaders, freshness: Freshness) -> None:
    """Mark a response as possibly old, and since when, if that is known."""
    headers["X-Data-Stale"] = "true"
    headers["Cache-Control"] = "no-store"
    if freshness.as_of is not None:
        headers["X-Data-As-Of"] = freshness.as_of.isoformat(timespec="milliseconds")


SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
DEFAULT_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Policy of responses that are not pages: nothing may be loaded, run, submitted or framed."""

DEFAULT_CSP_HEADER = (b"content-security-policy", DEFAULT_CSP.encode())
HSTS_HEADER = (b"strict-transport-security", b"max-age=31536000")
"""One year; sent only over TLS, since clients must ignore it over plain HTTP (RFC 6797, section 7.2)."""


class SecurityHeaders:
    """Adds security headers to every response; to those about a caller `no-store`, and the quota if one was used."""

    def __init__(self, app: ASGIApp, networks: ClientNetworks) -> None:
        """Use `networks` to find out whether the client used TLS."""
        self.app = app
        self.networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = [*message["headers"], *SECURITY_HEADERS]
                if DEFAULT_CSP_HEADER[0] not in [name for name, _ in headers]:
                    headers.append(DEFAULT_CSP_HEADER)
                if scope.get("is_personal"):
                    headers.append((b"cache-control", b"no-store"))
                quota = scope.get("quota")
                if quota is not None and (used := quota.used) is not None:
                    name = used.name.encode()  # Structured Fields (RFC 9651), each a list of one item
                    headers.append((b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, used.limit, WINDOW_SECONDS)))
                    headers.append((b"ratelimit", b'"%b";r=%d;t=%d' % (name, used.left, used.seconds)))
                if scope["scheme"] == "https" or self.networks.is_behind_tls(get_peer_address(scope), scope["headers"]):
                    headers.append(HSTS_HEADER)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class UnexpectedErrors:
    """Answers a request that failed in a way that nothing else handles."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def note_begin(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, note_begin)
        except Exception as error:
            response = await handle_unexpected_error(Request(scope), error)
            if has_begun:
                raise  # The server closes the connection, which tells the client that the rest is missing.
            await response(scope, receive, send)


MAX_BODY_BYTES = 64 * 1024
MAX_JSON_DEPTH = 20
MAX_LENGTH_DIGITS = 10
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
"""How long and how much a client may go on sending after a refusal, so that it can read the response before the
connection is closed."""

METHODS_WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
NON_BRACKET_BYTES = bytes(byte for byte in range(256) if byte not in b"[]{}")
BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")


class BodyLimit:
    """Reads request bodies and refuses large, compressed or deeply nested ones."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            return  # a part of a body may look complete
        except BodyTooLargeError as error:
            await send_refusal(error, scope, receive, send)
            return
        if is_too_deep(body):
            message = f"must not be nested deeper than {MAX_JSON_DEPTH}"
            await build_validation_response((["body"], message, "too_deep"))(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)


def parse_framing(scope: Scope) -> tuple[int | None, set[bytes]]:
    """Return the announced length (0 if unknown, None without a body) and the encodings of the body."""
    length: int | None = None
    encodings = set()
    for name, value in scope["headers"]:
        if name == b"content-length":
            is_plausible = value.isdigit() and len(value) < MAX_LENGTH_DIGITS
            length = max(length or 0, int(value) if is_plausible else MAX_BODY_BYTES + 1)
        elif name == b"transfer-encoding":
            length = length or 0
            encodings |= {value.strip().lower()} - {b"chunked"}
        elif name == b"content-encoding":
            encodings |= {value.strip().lower()} - {b"", b"identity"}
    return length, encodings


async def read_body(receive: Receive, announced: int) -> bytes:
    """Return the body. Raises `BodyTooLargeError` as soon as the limit is exceeded, and `ClientDisconnect`."""
    body, more = bytearray(), True
    while more:
        if max(announced, len(body)) > MAX_BODY_BYTES:
            raise BodyTooLargeError
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLargeError
    return bytes(body)


async def send_refusal(error: ShopAssistError, scope: Scope, receive: Receive, send: Send) -> None:
    """Respond at once, then read on for a while: unread data would reset the connection before the client reads."""
    response = await handle_domain_error(Request(scope), error)
    response.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            read, message = 0, await receive()
            while message.get("more_body", False) and read < LINGER_BYTES:
                read += len(message.get("body", b""))
                message = await receive()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def is_too_deep(body: bytes) -> bool:
    """Return whether the JSON in `body` is nested too deeply; for other content either result is fine.

    Each round removes the innermost brackets. All steps run in C: the largest body takes one or two milliseconds.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return False
    brackets = JSON_STRING.sub(b"", body).translate(BRACES_TO_BRACKETS, NON_BRACKET_BYTES)
    for _ in range(MAX_JSON_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
