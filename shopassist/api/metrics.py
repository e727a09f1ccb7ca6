"""`/metrics`, for Prometheus."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import structlog
from fastapi import APIRouter, Request, Response

from shopassist.api.dependencies import Services, services
from shopassist.api.errors import ErrorBody
from shopassist.api.figures import families
from shopassist.errors import AuthenticationError, InvalidTokenError, PermissionDeniedError
from shopassist.telemetry.figures import Family
from shopassist.telemetry.processes import PERIOD_SECONDS, SharedFigures

logger = structlog.get_logger(__name__)

router = APIRouter(tags=["status"])

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
"""Headers by which a proxy says that it asks for somebody else, who may be anyone."""

NOT_FOR_EVERYONE = "Metrics are for private networks, asked directly. Set METRICS_TOKEN to read them from elsewhere."


class Metrics:
    """The figures of the service: of this process, or of all those that serve together."""

    def __init__(self, container: Services, folder: Path | None) -> None:
        """`folder` is what worker processes share; None for one that is alone."""
        self._container = container
        self._shared = None if folder is None else SharedFigures(folder)

    async def exposed(self, accept: str) -> tuple[bytes, str]:
        """Everything as it is now, and its content type."""
        return await asyncio.to_thread(self._exposed, families(self._container), time.monotonic(), accept)

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
                self._shared.publish(families(self._container), time.monotonic())

    async def _share(self, shared: SharedFigures) -> None:
        failing = False
        while True:
            try:
                await asyncio.to_thread(shared.publish, families(self._container), time.monotonic())
            except OSError as error:
                if not failing:
                    logger.warning("figures_not_shared", error=type(error).__name__)
                failing = True
            else:
                failing = False
            await asyncio.sleep(PERIOD_SECONDS)

    def _exposed(self, figures: list[Family], seen: float, accept: str) -> tuple[bytes, str]:
        # Nobody waits for the library at start, nor any request while it is imported.
        from shopassist.telemetry.exposition import exposed  # noqa: PLC0415

        if self._shared is not None:
            self._shared.publish(figures, seen)
            figures = self._shared.gather()
        return exposed(figures, accept)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Figures in the format of Prometheus."},
        401: {"model": ErrorBody, "description": "METRICS_TOKEN is set, and the bearer token is another."},
        403: {"model": ErrorBody, "description": NOT_FOR_EVERYONE},
    },
)
async def read_metrics(request: Request) -> Response:
    """Figures of the whole service, all its processes together; nothing in them is about a person."""
    require_reader(request)
    metrics: Metrics = request.app.state.metrics
    text, content_type = await metrics.exposed(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


def require_reader(request: Request) -> None:
    """Let those read who know METRICS_TOKEN, or, where none is set, who ask directly from a private network.

    Raises `AuthenticationError`, `InvalidTokenError` and `PermissionDeniedError`.
    """
    token = services(request).settings().telemetry.metrics_token
    if token is None:
        if not is_near(request):
            raise PermissionDeniedError(NOT_FOR_EVERYONE)
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationError
    if not hmac.compare_digest(given.strip().encode(), token.get_secret_value().encode()):
        raise InvalidTokenError


def is_near(request: Request) -> bool:
    """Whether the request comes from this machine or a private network, and for nobody else."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_private
