"""Health, for load balancers and people."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from shopassist import __version__
from shopassist.api.dependencies import HealthServiceDep, services
from shopassist.services.health import DatabaseHealth

router = APIRouter(tags=["status"])


class Health(BaseModel):
    """Alive."""

    status: str = "healthy"


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
        },
    )


def _status(state: DatabaseHealth, response: Response) -> int:
    if state.status == "healthy":
        return 200
    response.headers["Retry-After"] = "5"
    return 503
