"""The application: routers, middleware, error handlers, and what lives as long as it does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from shopassist import __version__
from shopassist.api import (
    admin,
    consent,
    consents,
    credit_history,
    credits,  # noqa: A004 - the noun's own name
    docs,
    guests,
    health,
    limits,
    metrics,
    notices,
    privacy,
    query,
    rollout,
    root,
    user,
)
from shopassist.api.body import BodyLimit
from shopassist.api.dependencies import Services
from shopassist.api.errors import add_error_handlers
from shopassist.api.hosts import AllowedHosts
from shopassist.api.middleware import RequestContext, UntilPrepared
from shopassist.api.security_headers import SecurityHeaders
from shopassist.telemetry.traces import end_tracing

logger = structlog.get_logger(__name__)

DESCRIPTION = """Ask for a product in plain words; the answer comes from a real catalogue.

A registered user sends `Authorization: Bearer <token>`, a guest `X-Session-ID: <id>`. One answered question costs one
credit; answers from the cache and questions that could not be answered are free."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Scheduled work runs while the app serves; work under way ends and connections are closed behind it."""
    container: Services = app.state.container
    availability, moving = container.availability(), container.rollout()
    try:
        async with (
            app.state.metrics.shared(),
            availability.running(app.state.before),
            container.replica().running(),
            nullcontext() if moving is None else moving.running(),
            container.jobs().running(availability.prepared),
        ):
            app.state.began()
            yield
    finally:
        await container.flights().close()
        await container.shutdown()
        await asyncio.to_thread(end_tracing)
        if availability.lost:
            logger.critical("database_lost", reason=availability.lost)


async def nothing() -> None:
    """Do nothing."""


def create_app(
    container: Services,
    before: Callable[[], Awaitable[None]] = nothing,
    began: Callable[[], None] = lambda: None,
    shared: Path | None = None,
) -> FastAPI:
    """The API over the services of `container`.

    `before` is awaited ahead of the first request, or, where the database need not be there at first, as soon as it
    is; `began` is called when the app begins to serve. In the folder `shared` the processes that serve together share
    their figures.
    """
    settings = container.settings()
    app = FastAPI(
        title="shopassist",
        version=__version__,
        description=DESCRIPTION,
        debug=False,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours carry no paths, only templates
    )
    app.state.container = container
    app.state.before = before
    app.state.began = began
    app.state.metrics = metrics.Metrics(container, shared)
    for module in (
        query,
        credits,
        root,
        health,
        credit_history,
        user,
        guests,
        privacy,
        consent,
        consents,
        notices,
        admin,
        rollout,
        metrics,
    ):
        app.include_router(module.router)
    docs.add_to(app)
    add_error_handlers(app)
    app.add_middleware(BodyLimit)
    if settings.database.start_degraded:
        app.add_middleware(UntilPrepared, availability=container.availability())
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.server.origins,
        allow_methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"],
        allow_headers=["*"],
        allow_credentials=True,
        expose_headers=[
            *("Idempotent-Replayed", "Link", *limits.HEADERS, "Retry-After", "X-Data-As-Of", "X-Data-Stale"),
            "X-Request-ID",
        ],
    )
    if "*" not in settings.server.allowed_hosts:
        app.add_middleware(AllowedHosts, allowed=settings.server.allowed_hosts)
    app.add_middleware(SecurityHeaders, networks=container.networks())
    app.add_middleware(RequestContext, figures=container.request_figures())
    return app
