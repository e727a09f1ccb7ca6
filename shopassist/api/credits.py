"""Credits of the caller."""

from fastapi import APIRouter

from shopassist.api.dependencies import IDENTITY, CallerDep, CreditServiceDep
from shopassist.api.errors import IDENTITY_ERRORS, documented
from shopassist.models import UserCreditStatus

router = APIRouter(prefix="/api", tags=["credits"], dependencies=IDENTITY, responses=documented(*IDENTITY_ERRORS))


@router.get("/user/credits")
@router.get("/user/credits/status", name="read_credits_status")
@router.get("/credits/status", name="read_status_of_credits")
async def read_credits(caller: CallerDep, service: CreditServiceDep) -> UserCreditStatus:
    """What the caller may spend, and when it comes back."""
    account = await service.own_account(caller.user_id, caller.is_guest)
    return UserCreditStatus(user_id=account.user_id, **service.status_of(account).model_dump())
