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
from shopassist.metrics.registry import MetricFamily, render_families
from shopassist.monitoring.collectors import collect_families
from shopassist.monitoring.health import Availability, DatabaseHealth, HealthService, Phase

logger = structlog.get_logger(__name__)

HealthServiceDep = Annotated[HealthService, Depends(take_from_container("health_service"))]
AvailabilityDep = Annotated[Availability, Depends(take_from_container("availability"))]


class StartupGuard:
    """Middleware that refuses API requests until the schema of the database was checked."""

    def __init__(self, app: ASGIApp, availability: Availability) -> None:
        """Wrap `app`."""
        self.app = app
        self.availability = availability

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        starting = self.availability.phase is Phase.STARTING
        if starting and scope["type"] == "http" and scope["path"].startswith("/api"):
            answer = await handle_domain_error(Request(scope), StorageUnavailableError())
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


router = APIRouter(tags=["status"])


class Health(BaseModel):
    """The process is alive."""

    status: str = "healthy"


class Readiness(BaseModel):
    """Whether the service is ready."""

    status: Phase


class DetailedHealth(Health):
    """State of all components."""

    version: str = __version__
    database: DatabaseHealth
    pool: dict[str, Any] | None
    components: dict[str, Any]


@router.get("/health")
async def read_health() -> Health:
    """Return whether the process is alive, whatever the state of the database."""
    return Health()


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Not ready yet, or stopping."}})
async def read_readiness(availability: AvailabilityDep, response: Response) -> Readiness:
    """Return whether to send requests here; while the database is down, answers from memory count."""
    phase = availability.phase
    if phase not in {Phase.READY, Phase.DEGRADED}:
        response.status_code = _set_retry_after(response)
    return Readiness(status=phase)


@router.get("/health/database", responses={503: {"model": DatabaseHealth, "description": "The database is down."}})
async def read_database_health(health: HealthServiceDep, response: Response) -> DatabaseHealth:
    """Return whether the database answers."""
    state = await health.database()
    response.status_code = _set_status(state, response)
    return state


@router.get("/health/detailed", responses={503: {"model": DetailedHealth, "description": "A component is down."}})
async def read_detailed_health(request: Request, health: HealthServiceDep, response: Response) -> DetailedHealth:
    """Return the state of all components."""
    container = request.app.state.container
    shared_answers = container.shared_answers()
    database = await health.database()
    response.status_code = _set_status(database, response)
    return DetailedHealth(
        status=database.status,
        database=database,
        pool=health.pool(),
        components={
            "jobs": container.jobs().status(),
            "ledger": container.ledger_audit().build_status(),
            "service": container.availability().status(),
            "replica": container.replica().status(),
            "resilience": container.resilience().get_counters(),
            "shared_cache": {"status": "off"} if shared_answers is None else shared_answers.status(),
            "stale_answers": container.stale_answers().status(),
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
"""Headers of a proxy, which may act for any client."""

METRICS_REFUSED = "Metrics are for private networks, asked directly. Set METRICS_TOKEN to read them from elsewhere."


class MetricsExporter:
    """Exports the metrics of this process, or of all worker processes."""

    def __init__(self, services: Any, folder: Path | None) -> None:
        """`folder` is shared by the worker processes; None if there are none."""
        self._services = services
        self._shared = None if folder is None else SharedMetrics(folder)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the current metrics as text and its content type, as the `Accept` header prefers."""
        return await asyncio.to_thread(self._render, collect_families(self._services), time.monotonic(), accept)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish metrics to the other processes during the block, and once more at its end."""
        if self._shared is None:
            yield
            return
        task = asyncio.create_task(self._publish_forever(self._shared))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with suppress(OSError):
                self._shared.publish(collect_families(self._services), time.monotonic())

    async def _publish_forever(self, shared: SharedMetrics) -> None:
        is_failing = False
        while True:
            try:
                await asyncio.to_thread(shared.publish, collect_families(self._services), time.monotonic())
            except OSError as error:
                if not is_failing:
                    logger.warning("metrics_publish_failed", error=type(error).__name__)
                is_failing = True
            else:
                is_failing = False
            await asyncio.sleep(PUBLISH_INTERVAL_SECONDS)

    def _render(self, families: list[MetricFamily], measured_at: float, accept: str) -> tuple[bytes, str]:
        if self._shared is not None:
            self._shared.publish(families, measured_at)
            families = self._shared.gather()
        return render_families(families, accept)


@metrics_router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Metrics in the Prometheus text format."},
        401: {"model": ErrorBody, "description": "METRICS_TOKEN is set, and the bearer token differs."},
        403: {"model": ErrorBody, "description": METRICS_REFUSED},
    },
)
async def read_metrics(request: Request) -> Response:
    """Return the metrics of all processes together. They contain no personal data."""
    require_metrics_access(request)
    metrics: MetricsExporter = request.app.state.metrics
    text, content_type = await metrics.render(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def require_metrics_access(request: Request) -> None:
    """Require METRICS_TOKEN or, if it is not set, a direct request from a private network.

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
    """Return whether the client is on this machine or a private network, without a proxy between."""
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_private
