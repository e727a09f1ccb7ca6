"""Health and metrics routes, and the middleware that refuses API requests during startup."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from shopassist import __version__
from shopassist.api.dependencies import get_container, take_from_container
from shopassist.api.error_handlers import RETRY_AFTER_SECONDS, ErrorBody, handle_domain_error
from shopassist.errors import AuthenticationError, InvalidTokenError, PermissionDeniedError, StorageUnavailableError
from shopassist.metrics.multiprocess import PUBLISH_INTERVAL_SECONDS, SharedMetrics
from shopassist.metrics.registry import MetricFamily
from shopassist.monitoring.collectors import collect_families
from shopassist.monitoring.health import Availability, DatabaseHealth, HealthService, Phase
from shopassist.monitoring.services import Services

logger = structlog.get_logger(__name__)

HealthServiceDep = Annotated[HealthService, Depends(take_from_container("health_service"))]


class StartupGuard:
    """Refuses what needs the database until its schema is known to fit, for servers that started without it."""

    def __init__(self, app: ASGIApp, availability: Availability) -> None:
        """Wrap `app`."""
        self.app = app
        self.availability = availability

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        starting = self.availability.phase is Phase.STARTING
        if starting and scope["type"] == "http" and scope["path"].startswith("/api"):
            answer = await handle_domain_error(Request(scope), StorageUnavailableError())
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


router = APIRouter(tags=["status"])


class Health(BaseModel):
    """Alive."""

    status: str = "healthy"


class Readiness(BaseModel):
    """What service is possible."""

    status: Phase


class DetailedHealth(Health):
    """The state of every part."""

    version: str = __version__
    database: DatabaseHealth
    pool: dict[str, Any] | None
    components: dict[str, Any]


@router.get("/health")
async def read_health() -> Health:
    """Whether the process is alive; says nothing of the database."""
    return Health()


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Not yet, or not any more."}})
async def read_readiness(request: Request, response: Response) -> Readiness:
    """Whether to send requests here: service is possible, if only from memory while the database is away."""
    phase = get_container(request).availability().phase
    if phase not in {Phase.READY, Phase.DEGRADED}:
        response.status_code = _set_retry_after(response)
    return Readiness(status=phase)


@router.get("/health/database", responses={503: {"model": DatabaseHealth, "description": "The database is away."}})
async def read_database_health(health: HealthServiceDep, response: Response) -> DatabaseHealth:
    """Whether the database answers."""
    state = await health.database()
    response.status_code = _set_status(state, response)
    return state


@router.get("/health/detailed", responses={503: {"model": DetailedHealth, "description": "A part is down."}})
async def read_detailed_health(request: Request, health: HealthServiceDep, response: Response) -> DetailedHealth:
    """The state of every part."""
    database = await health.database()
    response.status_code = _set_status(database, response)
    return DetailedHealth(
        status=database.status,
        database=database,
        pool=health.pool(),
        components={
            "jobs": get_container(request).jobs().status(),
            "ledger": get_container(request).ledger_audit().status(),
            "service": get_container(request).availability().status(),
            "replica": get_container(request).replica().status(),
            "resilience": get_container(request).resilience().figures(),
            "shared_cache": get_container(request).shared_answers().status(),
            "stale_answers": get_container(request).stale_answers().figures(),
        },
    )


def _set_status(state: DatabaseHealth, response: Response) -> int:
    if state.status == "healthy":
        return 200
    return _set_retry_after(response)


def _set_retry_after(response: Response) -> int:
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return 503


metrics_router = APIRouter(tags=["status"])

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers by which a proxy says that it asks for somebody else, who may be anyone."""

METRICS_REFUSED = "Metrics are for private networks, asked directly. Set METRICS_TOKEN to read them from elsewhere."


class MetricsExporter:
    """The figures of the service: of this process, or of all those that serve together."""

    def __init__(self, container: Services, folder: Path | None) -> None:
        """`folder` is what worker processes share; None for one that is alone."""
        self._container = container
        self._shared = None if folder is None else SharedMetrics(folder)

    async def exposed(self, accept: str) -> tuple[bytes, str]:
        """Everything as it is now, and its content type."""
        return await asyncio.to_thread(self._exposed, collect_families(self._container), time.monotonic(), accept)

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """For the length of the block, and with its last figures behind it, let the other processes know."""
        if self._shared is None:
            yield
            return
        sharing = asyncio.create_task(self._share(self._shared))
        try:
            yield
        finally:
            sharing.cancel()
            await asyncio.gather(sharing, return_exceptions=True)
            with suppress(OSError):
                self._shared.publish(collect_families(self._container), time.monotonic())

    async def _share(self, shared: SharedMetrics) -> None:
        failing = False
        while True:
            try:
                await asyncio.to_thread(shared.publish, collect_families(self._container), time.monotonic())
            except OSError as error:
                if not failing:
                    logger.warning("figures_not_shared", error=type(error).__name__)
                failing = True
            else:
                failing = False
            await asyncio.sleep(PUBLISH_INTERVAL_SECONDS)

    def _exposed(self, figures: list[MetricFamily], seen: float, accept: str) -> tuple[bytes, str]:
        # Nobody waits for the library at start, nor any request while it is imported.
        from shopassist.metrics.exposition import render_families as exposed  # noqa: PLC0415

        if self._shared is not None:
            self._shared.publish(figures, seen)
            figures = self._shared.gather()
        return exposed(figures, accept)


@metrics_router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Figures in the format of Prometheus."},
        401: {"model": ErrorBody, "description": "METRICS_TOKEN is set, and the bearer token is another."},
        403: {"model": ErrorBody, "description": METRICS_REFUSED},
    },
)
async def read_metrics(request: Request) -> Response:
    """Figures of the whole service, all its processes together; nothing in them is about a person."""
    require_metrics_access(request)
    metrics: MetricsExporter = request.app.state.metrics
    text, content_type = await metrics.exposed(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def require_metrics_access(request: Request) -> None:
    """Let those read who know METRICS_TOKEN, or, where none is set, who ask directly from a private network.

    Raises `AuthenticationError`, `InvalidTokenError` and `PermissionDeniedError`.
    """
    token = get_container(request).settings().telemetry.metrics_token
    if token is None:
        if not is_private_client(request):
            raise PermissionDeniedError(METRICS_REFUSED)
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationError
    if not hmac.compare_digest(given.strip().encode(), token.get_secret_value().encode()):
        raise InvalidTokenError


def is_private_client(request: Request) -> bool:
    """Whether the request comes from this machine or a private network, and for nobody else."""
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_private
