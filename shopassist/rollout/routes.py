"""`/api/admin/rollout`: status and control of a rollout, for administrators."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from shopassist.api.dependencies import REGISTERED_SECURITY, AdministratorDep, get_request_id, take_from_container
from shopassist.api.error_handlers import ADMIN_ERRORS, BODY_ERRORS, document_errors
from shopassist.audit.models import READ_ROLLOUT, TURN_ROLLOUT, AccessReason, AdminAct
from shopassist.audit.routes import AuditUnitOfWorkDep
from shopassist.errors import NoRolloutError
from shopassist.rollout.controller import Rollout
from shopassist.rollout.models import RolloutPercent, RolloutStatus

RolloutDep = Annotated[Rollout | None, Depends(take_from_container("rollout"))]

router = APIRouter(prefix="/api/admin/rollout", tags=["administration"], dependencies=REGISTERED_SECURITY)


async def build_recorder(
    administrator: AdministratorDep,
    unit_of_work: AuditUnitOfWorkDep,
    reason: Annotated[AccessReason | None, Query()] = None,
) -> Callable[[str, str | None], Awaitable[None]]:
    """Return a function that records what the administrator did, and to what."""

    async def record(action: str, target: str | None) -> None:
        request_id = get_request_id()
        act = AdminAct(actor=administrator.user_id, act=action, target=target, reason=reason, request_id=request_id)
        await unit_of_work.run(lambda work: work.admin_audit.record(act), repeatable=True)

    return record


RecorderDep = Annotated[Callable[[str, str | None], Awaitable[None]], Depends(build_recorder)]


def require(rollout: Rollout | None) -> Rollout:
    """Return the rollout. Raises `NoRolloutError` where the server does not run one."""
    if rollout is None:
        raise NoRolloutError
    return rollout


@router.get("", responses=document_errors(*ADMIN_ERRORS, NoRolloutError))
async def read_rollout(record: RecorderDep, rollout: RolloutDep) -> RolloutStatus:
    """Where users are, and what comparing both sides came to."""
    status = await require(rollout).get_status()
    if status.unmirrored:  # it names users
        await record(READ_ROLLOUT, None)
    return status


@router.put("", responses=document_errors(*ADMIN_ERRORS, *BODY_ERRORS, NoRolloutError))
async def set_rollout(wanted: RolloutPercent, record: RecorderDep, rollout: RolloutDep) -> RolloutStatus:
    """Send that share of users to PostgreSQL, and all others to memory."""
    require(rollout).set(wanted.percent)
    await record(TURN_ROLLOUT, f"{wanted.percent:g} %")
    return await require(rollout).get_status()


@router.post("/back", responses=document_errors(*ADMIN_ERRORS, NoRolloutError))
async def send_back(record: RecorderDep, rollout: RolloutDep) -> RolloutStatus:
    """Send everybody back to memory at once, be PostgreSQL there or not; `unmirrored` are those to look after."""
    await require(rollout).back()
    await record(TURN_ROLLOUT, "back")
    return await require(rollout).get_status()
