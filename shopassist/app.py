"""Assemble the FastAPI application: routers, middleware, error handlers and lifespan."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from shopassist import __version__
from shopassist.api import pages
from shopassist.api.error_handlers import ERROR_HANDLERS
from shopassist.api.middleware import (
    BodyLimit,
    Refusals,
    RequestContext,
    SecurityHeaders,
    UnexpectedErrors,
    check_host,
)
from shopassist.audit import routes as audit_routes
from shopassist.consent import routes as consent_routes
from shopassist.credits import routes as credit_routes
from shopassist.metrics import SharedMetrics
from shopassist.monitoring import health
from shopassist.monitoring import metrics as metrics_routes
from shopassist.privacy import routes as privacy_routes
from shopassist.query import routes as query_routes
from shopassist.rollout import routes as rollout_routes
from shopassist.tracing import stop_tracing

logger = structlog.get_logger(__name__)

DESCRIPTION = """Ask for a product in plain words; the answer comes from a real catalogue.

A registered user sends `Authorization: Bearer <token>`, a guest `X-Session-ID: <id>`. One answered question costs one
credit; answers from the cache and questions that could not be answered are free."""


# Also the order of the operations in /openapi.json.
ROUTERS = (
    query_routes.router,
    credit_routes.router,
    pages.router,
    health.router,
    credit_routes.history_router,
    credit_routes.profile_router,
    credit_routes.guest_router,
    privacy_routes.router,
    consent_routes.record_router,
    consent_routes.purpose_router,
    consent_routes.notice_router,
    audit_routes.admin_router,
    credit_routes.admin_router,
    rollout_routes.router,
    metrics_routes.router,
)
EXPOSED_HEADERS = [
    "Content-Disposition",
    "Idempotent-Replayed",
    "Link",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Data-As-Of",
    "X-Data-Stale",
    "X-Request-ID",
]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run jobs and background services while the app serves; at the end finish questions and close connections."""
    container: Any = app.state.container
    availability = container.availability()
    try:
        async with (
            metrics_routes.publishing_metrics(container, app.state.shared_metrics),
            availability.running(app.state.before),
            container.replica().running(),
            AsyncExitStack() as background,
        ):
            for service in container.background_services():
                await background.enter_async_context(service.running())
            await background.enter_async_context(container.jobs().run_while(availability.prepared.wait))
            app.state.began()
            yield
    finally:
        await container.single_flight().close()
        await container.shutdown()
        await asyncio.to_thread(stop_tracing)
        if availability.lost:
            logger.critical("database_lost", reason=availability.lost)


async def do_nothing() -> None:
    """Do nothing, where nothing is to be prepared."""


async def redirect_final_slash(app: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:
    """Redirect a path that only its final slash keeps from being a route; any other is not found.

    The location is relative, so that it is also right behind a proxy that removes a prefix of the path.
    """
    path, _, rest = scope["path"].rpartition("/")
    candidate = {**scope, "path": path}
    if rest or not path or all(route.matches(candidate)[0] is Match.NONE for route in app.routes):
        await app.router.not_found(scope, receive, send)
        return
    query = scope["query_string"].decode("latin-1")
    location = f"../{quote(path.rpartition('/')[2])}{'?' if query else ''}{query}"
    await RedirectResponse(location)(scope, receive, send)


def create_app(
    container: Any,
    before: Callable[[], Awaitable[None]] = do_nothing,
    began: Callable[[], None] = lambda: None,
    shared: Path | None = None,
) -> FastAPI:
    """Build the API over the services of `container`.

    `before` is awaited before the first request, or, with START_DEGRADED, as soon as the database is available.
    `began` is called when the app starts to serve. Worker processes share their metrics in the folder `shared`.
    """
    settings = container.settings()
    app = FastAPI(
        title="shopassist",
        version=__version__,
        description=DESCRIPTION,
        debug=False,
        lifespan=lifespan,
        exception_handlers=ERROR_HANDLERS,
        redirect_slashes=False,  # FastAPI's redirects name the scheme and the host that it sees
        servers=[{"url": "."}],  # relative to the document, which may stand behind a prefix
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours carry no paths, only templates
    )
    app.state.container = container
    app.state.before = before
    app.state.began = began
    app.state.shared_metrics = None if shared is None else SharedMetrics(shared)
    for router in ROUTERS:
        app.include_router(router)
    pages.add_docs(app)
    app.router.default = partial(redirect_final_slash, app)
    app.add_middleware(BodyLimit)
    if settings.database.start_degraded:
        app.add_middleware(Refusals, find_error=partial(health.check_started, container.availability()))
    app.add_middleware(UnexpectedErrors)  # inside those that add headers
    if "*" not in settings.server.allowed_hosts:
        app.add_middleware(Refusals, find_error=partial(check_host, settings.server.allowed_hosts))
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.server.origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=EXPOSED_HEADERS,
    )
    app.add_middleware(SecurityHeaders, networks=container.client_networks())
    app.add_middleware(RequestContext, metrics=container.request_metrics())
    return app
