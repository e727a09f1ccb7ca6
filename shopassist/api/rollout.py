"""The rollout, for administrators; `shopassist rollout` asks here."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from shopassist.api.consenting import request_id
from shopassist.api.dependencies import REGISTERED, AdministratorDep, RolloutServiceDep
from shopassist.api.errors import ADMIN_ERRORS, BODY_ERRORS, documented
from shopassist.errors import NoRolloutError
from shopassist.models import AdminAct
from shopassist.models.admin_audit import WhyRead
from shopassist.models.rollout import RolloutPercent, RolloutStatus

router = APIRouter(prefix="/api/admin/rollout", tags=["administration"], dependencies=REGISTERED)


async def acting(administrator: AdministratorDep, reason: Annotated[WhyRead | None, Query()] = None) -> AdminAct:
    """Who acts, and why."""
    return AdminAct(actor=administrator.user_id, act="", reason=reason, request_id=request_id())


ActDep = Annotated[AdminAct, Depends(acting)]


@router.get("", responses=documented(*ADMIN_ERRORS, NoRolloutError))
async def read_rollout(act: ActDep, service: RolloutServiceDep) -> RolloutStatus:
    """Where users are, and what comparing both sides came to."""
    return await service.status(act)


@router.put("", responses=documented(*ADMIN_ERRORS, *BODY_ERRORS, NoRolloutError))
async def set_rollout(wanted: RolloutPercent, act: ActDep, service: RolloutServiceDep) -> RolloutStatus:
    """Send that share of users to PostgreSQL, and all others to memory."""
    return await service.set(wanted.percent, act)


@router.post("/back", responses=documented(*ADMIN_ERRORS, NoRolloutError))
async def send_back(act: ActDep, service: RolloutServiceDep) -> RolloutStatus:
    """Send everybody back to memory at once, be PostgreSQL there or not; `unmirrored` are those to look after."""
    return await service.back(act)
