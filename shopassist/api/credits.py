"""Credits of the caller."""

from fastapi import APIRouter, Response

from shopassist.api.dependencies import IDENTITY, CallerDep, CreditServiceDep
from shopassist.api.direct import DirectRoute, json_response
from shopassist.api.errors import GUEST_ERRORS, documented
from shopassist.models import UserCreditStatus

router = APIRouter(
    prefix="/api",
    tags=["credits"],
    dependencies=IDENTITY,
    responses=documented(*GUEST_ERRORS),
    route_class=DirectRoute,
)


@router.get("/user/credits", response_model=UserCreditStatus)
@router.get("/user/credits/status", name="read_credits_status", response_model=UserCreditStatus)
@router.get("/credits/status", name="read_status_of_credits", response_model=UserCreditStatus)
async def read_credits(caller: CallerDep, service: CreditServiceDep) -> Response:
    """What the caller may spend, and when it comes back."""
    account = await service.own_account(caller.user_id, caller.is_guest, caller.network)
    status = service.status_of(account)
    return json_response(UserCreditStatus(user_id=account.user_id, **status.__dict__))
