"""Health, for load balancers and people."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from shopassist import __version__
from shopassist.api.dependencies import HealthServiceDep, services
from shopassist.api.errors import RETRY_AFTER_SECONDS
from shopassist.services.availability import Phase
from shopassist.services.health import DatabaseHealth

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
    phase = services(request).availability().phase
    if phase not in {Phase.READY, Phase.DEGRADED}:
        response.status_code = _unavailable(response)
    return Readiness(status=phase)


@router.get("/health/database", responses={503: {"model": DatabaseHealth, "description": "The database is away."}})
async def read_database_health(health: HealthServiceDep, response: Response) -> DatabaseHealth:
    """Whether the database answers."""
    state = await health.database()
    response.status_code = _status(state, response)
    return state


@router.get("/health/detailed", responses={503: {"model": DetailedHealth, "description": "A part is down."}})
async def read_detailed_health(request: Request, health: HealthServiceDep, response: Response) -> DetailedHealth:
    """The state of every part."""
    database = await health.database()
    response.status_code = _status(database, response)
    return DetailedHealth(
        status=database.status,
        database=database,
        pool=health.pool(),
        components={
            "jobs": services(request).jobs().status(),
            "ledger": services(request).ledger_audit().status(),
            "service": services(request).availability().status(),
            "replica": services(request).replica().status(),
            "resilience": services(request).resilience().figures(),
            "shared_cache": services(request).shared_answers().status(),
            "stale_answers": services(request).stale_answers().figures(),
        },
    )


def _status(state: DatabaseHealth, response: Response) -> int:
    if state.status == "healthy":
        return 200
    return _unavailable(response)


def _unavailable(response: Response) -> int:
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return 503
