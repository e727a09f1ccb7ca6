"""The caller's own profile."""

from fastapi import APIRouter
from pydantic import BaseModel

from shopassist.api.dependencies import REGISTERED, CreditServiceDep, RegisteredDep
from shopassist.api.errors import IDENTITY_ERRORS, documented
from shopassist.models import CreditStatus

router = APIRouter(prefix="/api/user", tags=["user"], dependencies=REGISTERED, responses=documented(*IDENTITY_ERRORS))


class Profile(BaseModel):
    """A registered user: what the token says of them, and their credits."""

    user_id: str
    email: str | None
    name: str | None
    picture: str | None
    credits: CreditStatus


@router.get("/me")
async def read_profile(caller: RegisteredDep, service: CreditServiceDep) -> Profile:
    """Who the caller is."""
    account = await service.own_account(caller.user_id, caller.is_guest, caller.network)
    return Profile(
        user_id=caller.user_id,
        email=caller.email,
        name=caller.name,
        picture=caller.picture,
        credits=service.status_of(account),
    )
