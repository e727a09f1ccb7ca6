"""What every request passes: an id for the logs, and the database once it is ready. Pure ASGI."""

import re
import time
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopassist.api.errors import domain_error
from shopassist.api.staleness import mark_stale
from shopassist.db.freshness import freshness
from shopassist.db.resilience.policy import deadline_within
from shopassist.errors import StorageUnavailableError
from shopassist.services.availability import Availability, Phase
from shopassist.telemetry.figures import RequestFigures
from shopassist.telemetry.traces import request_span

REQUEST_SECONDS = 45.0
"""No request lives longer: the assistant's time and what is around it. Known clients ask again after 15."""

logger = structlog.get_logger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class UntilPrepared:
    """Refuses what needs the database until its schema is known to fit, for servers that started without it."""

    def __init__(self, app: ASGIApp, availability: Availability) -> None:
        """Wrap `app`."""
        self.app = app
        self.availability = availability

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        starting = self.availability.phase is Phase.STARTING
        if starting and scope["type"] == "http" and scope["path"].startswith("/api"):
            answer = await domain_error(Request(scope), StorageUnavailableError())
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


class RequestContext:
    """Gives each request an id (the client's `X-Request-ID`, or a new one), and logs it.

    It is counted, and is a span where there are traces.
    """

    def __init__(self, app: ASGIApp, figures: RequestFigures) -> None:
        """Wrap `app`."""
        self.app = app
        self.figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if REQUEST_ID.fullmatch(given) else uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        span = request_span(scope["headers"], request_id)
        if span:
            span.begin()
            structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
        self.figures.under_way += 1
        began, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                if noted.is_stale:
                    mark_stale(MutableHeaders(scope=message), noted)
            await send(message)

        try:
            with deadline_within(REQUEST_SECONDS), freshness() as noted:
                await self.app(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", None)
            seconds = time.perf_counter() - began
            self.figures.under_way -= 1
            self.figures.answered(scope["method"], route, status, seconds)
            milliseconds = round(1000 * seconds, 1)
            logger.info("request", method=scope["method"], route=route, status=status, milliseconds=milliseconds)
            if span:
                span.end(scope["method"], route, status)
            structlog.contextvars.clear_contextvars()
