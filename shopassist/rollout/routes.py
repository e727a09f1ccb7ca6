"""`/api/admin/rollout`: status and control of a rollout, for administrators."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from shopassist.api.dependencies import REGISTERED_SECURITY, AdministratorDep, get_request_id, take_from_container
from shopassist.api.error_handlers import ADMIN_ERRORS, BODY_ERRORS, document_errors
from shopassist.audit.models import AccessReason, AdminAct
from shopassist.errors import NoRolloutError
from shopassist.rollout.controller import RolloutService
from shopassist.rollout.models import RolloutPercent, RolloutStatus

RolloutServiceDep = Annotated[RolloutService, Depends(take_from_container("rollout_service"))]

router = APIRouter(prefix="/api/admin/rollout", tags=["administration"], dependencies=REGISTERED_SECURITY)


async def build_audit_entry(
    administrator: AdministratorDep, reason: Annotated[AccessReason | None, Query()] = None
) -> AdminAct:
    """Who acts, and why."""
    return AdminAct(actor=administrator.user_id, act="", reason=reason, request_id=get_request_id())


AuditEntryDep = Annotated[AdminAct, Depends(build_audit_entry)]


@router.get("", responses=document_errors(*ADMIN_ERRORS, NoRolloutError))
async def read_rollout(act: AuditEntryDep, service: RolloutServiceDep) -> RolloutStatus:
    """Where users are, and what comparing both sides came to."""
    return await service.get_status(act)


@router.put("", responses=document_errors(*ADMIN_ERRORS, *BODY_ERRORS, NoRolloutError))
async def set_rollout(wanted: RolloutPercent, act: AuditEntryDep, service: RolloutServiceDep) -> RolloutStatus:
    """Send that share of users to PostgreSQL, and all others to memory."""
    return await service.set(wanted.percent, act)


@router.post("/back", responses=document_errors(*ADMIN_ERRORS, NoRolloutError))
async def send_back(act: AuditEntryDep, service: RolloutServiceDep) -> RolloutStatus:
    """Send everybody back to memory at once, be PostgreSQL there or not; `unmirrored` are those to look after."""
    return await service.back(act)
