"""Route that lists the audit log, and the router of administration."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from shopassist.api.dependencies import REGISTERED_SECURITY, AdministratorDep, get_request_id, take_from_container
from shopassist.api.error_handlers import ADMIN_ERRORS, document_errors
from shopassist.api.pagination import build_next_link, decode_id_cursor
from shopassist.audit.models import READ_AUDIT, AccessReason, AdminAct
from shopassist.audit.service import AdminAuditService
from shopassist.text import USER_ID_LENGTH, validate_text

admin_router = APIRouter(prefix="/api/admin", tags=["administration"], dependencies=REGISTERED_SECURITY)

UserId = Annotated[str, StringConstraints(min_length=1, max_length=USER_ID_LENGTH), AfterValidator(validate_text)]


class AuditQuery(BaseModel):
    """Which acts, which page of them, and why they are looked at."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the `Link` header.")
    actor: UserId | None = Field(default=None, description="Acts by this user alone.")
    target: UserId | None = Field(default=None, description="Acts about this user alone.")
    reason: AccessReason | None = None


AdminAuditDep = Annotated[AdminAuditService, Depends(take_from_container("admin_audit_service"))]


@admin_router.get("/audit", responses=document_errors(*ADMIN_ERRORS))
async def read_audit(
    request: Request,
    response: Response,
    administrator: AdministratorDep,
    service: AdminAuditDep,
    wanted: Annotated[AuditQuery, Query()],
) -> list[AdminAct]:
    """What administrators and operators did, newest first, a page at a time. Looking is an act, too."""
    looking = AdminAct(
        actor=administrator.user_id,
        act=READ_AUDIT,
        target=wanted.target,
        reason=wanted.reason,
        request_id=get_request_id(),
    )
    acts = await service.read(looking, wanted.limit + 1, decode_id_cursor(wanted.cursor), wanted.actor, wanted.target)
    page = acts[: wanted.limit]
    if len(acts) > wanted.limit:
        response.headers["Link"] = build_next_link(request, str(page[-1].id))
    return page
