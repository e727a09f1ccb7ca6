"""What administrators do."""

from fastapi import APIRouter, Response

from shopassist.api.dependencies import REGISTERED, AdjustmentServiceDep, AdministratorDep
from shopassist.api.errors import ADMIN_ERRORS, BODY_ERRORS, documented
from shopassist.api.query import IdempotencyKey
from shopassist.errors import NotFoundError, OverdrawError
from shopassist.models.adjustment import CreditAdjusted, CreditAdjustment

router = APIRouter(prefix="/api/admin", tags=["administration"], dependencies=REGISTERED)


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
    adjusted, replayed = await service.adjust(user_id, change, administrator.user_id, idempotency_key)
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return adjusted
