"""Sessions for guests that nobody can guess or make up."""

from fastapi import APIRouter, Request

from shopassist.api.dependencies import CreditServiceDep, services
from shopassist.api.errors import documented
from shopassist.api.limits import spend
from shopassist.api.security_headers import peer_of
from shopassist.errors import GuestLimitError, RateLimitedError
from shopassist.identity.limits import Kind
from shopassist.models import GuestSession

router = APIRouter(prefix="/api", tags=["guests"])


@router.post("/guest", responses=documented(GuestLimitError, RateLimitedError))
async def begin_session(request: Request, service: CreditServiceDep) -> GuestSession:
    """A new guest, with credits of their own. Send `session_id` as `X-Session-ID`, and show it to nobody.

    It counts as one of the guests that may come from a network in a day, and does not expire.
    """
    container = services(request)
    network = container.networks().of(peer_of(request.scope), request.scope["headers"])
    caller, session_id = container.guest_sessions().issue(network)
    await spend(request, container.rate_limits(), Kind.READS, caller)
    account = await service.own_account(caller.user_id, caller.is_guest, network)
    status = service.status_of(account)
    return GuestSession(session_id=session_id, user_id=account.user_id, **status.__dict__)
