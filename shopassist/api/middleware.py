"""ASGI middleware: request ids, logs and traces; allowed hosts; security headers."""

import re
import time
from collections.abc import Iterable
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopassist.api.dependencies import get_peer_address
from shopassist.api.error_handlers import handle_domain_error
from shopassist.api.headers import DEFAULT_CSP, build_quota_headers, set_stale_headers
from shopassist.db.replica import track_freshness
from shopassist.db.resilience import limit_time
from shopassist.errors import HostNotAllowedError
from shopassist.identity.client_network import ClientNetworks
from shopassist.metrics.registry import RequestMetrics
from shopassist.tracing import request_span

logger = structlog.get_logger(__name__)


class AllowedHosts:
    """Refuses requests to other hosts, so that no link of ours ever leads to a name that a client made up."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        """`allowed` holds whole names, and `*.name` for all names below it."""
        self.app = app
        names = [name.lower() for name in allowed]
        self.names = frozenset(names)
        self.ends = tuple(name[1:] for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or self._is_allowed(scope):
            await self.app(scope, receive, send)
            return
        answer = await handle_domain_error(Request(scope), HostNotAllowedError())
        await answer(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return False
        name = strip_port(hosts[0])
        return name in self.names or name.endswith(self.ends)


def strip_port(host: str) -> str:
    """The name, or the address without its brackets, in a `Host` header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


REQUEST_TIMEOUT_SECONDS = 45.0
"""No request lives longer: the assistant's time and what is around it. Known clients ask again after 15."""

REQUEST_ID_PATTERN = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives each request an id (the client's `X-Request-ID`, or a new one), and logs it.

    It is counted, and is a span where there are traces.
    """

    def __init__(self, app: ASGIApp, figures: RequestMetrics) -> None:
        """Wrap `app`."""
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if REQUEST_ID_PATTERN.fullmatch(given) else uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        span = request_span(scope["headers"], request_id)
        if span:
            span.begin()
            structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        self.figures.in_progress += 1
        began, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if noted.is_stale:
                    set_stale_headers(MutableHeaders(scope=message), noted)
            await send(message)

        try:
            with limit_time(REQUEST_TIMEOUT_SECONDS), track_freshness() as noted:
                await self.app(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - began
            self.figures.in_progress -= 1
            self.figures.count_request(scope["method"], route, status, seconds)
            milliseconds = round(1000 * seconds, 1)
            logger.info("request", method=scope["method"], route=route, status=status, milliseconds=milliseconds)
            if span:
                span.end(scope["method"], route, status)
            structlog.contextvars.clear_contextvars()


SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
]
DEFAULT_CSP_HEADER = (b"content-security-policy", DEFAULT_CSP.encode())
HSTS_HEADER = (b"strict-transport-security", b"max-age=31536000")
"""A year; said only over TLS, since over plain HTTP nobody may believe it (RFC 6797, section 7.2)."""


class SecurityHeaders:
    """Adds them to every answer."""

    def __init__(self, app: ASGIApp, networks: ClientNetworks) -> None:
        """`networks` knows which proxies are believed to say that the client came over TLS."""
        self.app = app
        self.networks = networks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"] = [*message["headers"], *SECURITY_HEADERS]
                if DEFAULT_CSP_HEADER[0] not in [name for name, _ in headers]:
                    headers.append(DEFAULT_CSP_HEADER)
                quota = scope.get("quota")
                if quota is not None:
                    headers += build_quota_headers(quota)
                if scope["scheme"] == "https" or self.networks.is_behind_tls(get_peer_address(scope), scope["headers"]):
                    headers.append(HSTS_HEADER)
            await send(message)

        await self.app(scope, receive, send_with_headers)
