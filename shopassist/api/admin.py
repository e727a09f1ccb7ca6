"""What administrators do."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from shopassist.api.consenting import request_id
from shopassist.api.cursors import next_page, read_id
from shopassist.api.dependencies import (
    REGISTERED,
    AdjustmentServiceDep,
    AdminAuditDep,
    AdministratorDep,
    NoticeServiceDep,
)
from shopassist.api.errors import ADMIN_ERRORS, BODY_ERRORS, documented
from shopassist.api.query import IdempotencyKey
from shopassist.errors import NotFoundError, NoticeExistsError, OverdrawError
from shopassist.models import AdminAct, ConsentNotice
from shopassist.models.adjustment import CreditAdjusted, CreditAdjustment
from shopassist.models.admin_audit import READ_AUDIT, WhyRead
from shopassist.models.credits import USER_ID_LENGTH
from shopassist.models.notice import NoticePublication
from shopassist.models.text import storable

router = APIRouter(prefix="/api/admin", tags=["administration"], dependencies=REGISTERED)

UserId = Annotated[str, StringConstraints(min_length=1, max_length=USER_ID_LENGTH), AfterValidator(storable)]


class AuditQuery(BaseModel):
    """Which acts, which page of them, and why they are looked at."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the `Link` header.")
    actor: UserId | None = Field(default=None, description="Acts by this user alone.")
    target: UserId | None = Field(default=None, description="Acts about this user alone.")
    reason: WhyRead | None = None


# A subject may have slashes in it.
@router.post(
    "/credits/{user_id:path}/adjust",
    responses=documented(*ADMIN_ERRORS, *BODY_ERRORS, NotFoundError, OverdrawError),
)
async def adjust_credits(
    user_id: str,
    change: CreditAdjustment,
    response: Response,
    administrator: AdministratorDep,
    service: AdjustmentServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> CreditAdjusted:
    """Add credits to an account or take them away. Send an `Idempotency-Key`, and a repeat adjusts nothing again."""
    adjusted, replayed = await service.adjust(user_id, change, administrator.user_id, idempotency_key, request_id())
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return adjusted


@router.post("/notices", responses=documented(*ADMIN_ERRORS, *BODY_ERRORS, NoticeExistsError))
async def publish_notice(
    publication: NoticePublication,
    administrator: AdministratorDep,
    service: NoticeServiceDep,
    reason: Annotated[WhyRead | None, Query()] = None,
) -> ConsentNotice:
    """Publish a text for good. The same again changes nothing."""
    return await service.publish(publication, administrator.user_id, reason, request_id())


@router.get("/audit", responses=documented(*ADMIN_ERRORS))
async def read_audit(
    request: Request,
    response: Response,
    administrator: AdministratorDep,
    service: AdminAuditDep,
    wanted: Annotated[AuditQuery, Query()],
) -> list[AdminAct]:
    """What administrators and operators did, newest first, a page at a time. Looking is an act, too."""
    looking = AdminAct(
        actor=administrator.user_id, act=READ_AUDIT, target=wanted.target, reason=wanted.reason, request_id=request_id()
    )
    acts = await service.read(looking, wanted.limit + 1, read_id(wanted.cursor), wanted.actor, wanted.target)
    page = acts[: wanted.limit]
    if len(acts) > wanted.limit:
        response.headers["Link"] = next_page(request, str(page[-1].id))
    return page
