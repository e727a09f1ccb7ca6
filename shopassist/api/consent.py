"""What the caller has agreed to."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from shopassist.api.cursors import next_page, read_cursor
from shopassist.api.dependencies import REGISTERED, AdministratorDep, ConsentServiceDep, RegisteredDep
from shopassist.api.errors import ADMIN_ERRORS, IDENTITY_ERRORS, documented
from shopassist.api.staleness import MAY_BE_STALE
from shopassist.errors import NotFoundError, TermsNotAcceptedError
from shopassist.models import UserConsent, UserConsentCreate, UserConsentUpdate

router = APIRouter(prefix="/api/consent", tags=["consent"], dependencies=REGISTERED)

NO_RECORD = "There is no consent record for this user."


@router.post("", responses=documented(*IDENTITY_ERRORS, TermsNotAcceptedError))
@router.post("/", include_in_schema=False)
async def create_consent(consent: UserConsentCreate, caller: RegisteredDep, service: ConsentServiceDep) -> UserConsent:
    """Agree to the terms, once."""
    return await service.create_consent(caller.user_id, consent)


@router.get("/me", responses=documented(*IDENTITY_ERRORS, NotFoundError))
async def read_consent(caller: RegisteredDep, service: ConsentServiceDep) -> UserConsent:
    """What the caller has agreed to."""
    return _found(await service.get_consent(caller.user_id))


@router.put("/me", responses=documented(*IDENTITY_ERRORS, NotFoundError))
async def update_consent(update: UserConsentUpdate, caller: RegisteredDep, service: ConsentServiceDep) -> UserConsent:
    """Give or withdraw consent to marketing."""
    return _found(await service.update_consent(caller.user_id, update))


@router.get("/admin/all", responses={200: MAY_BE_STALE, **documented(*ADMIN_ERRORS)})
async def list_consents(
    request: Request,
    response: Response,
    _: AdministratorDep,
    service: ConsentServiceDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=1024, description="From the `Link` header.")] = None,
) -> list[UserConsent]:
    """All records, a page at a time; the `Link` header has the next page (RFC 8288)."""
    records = await service.list_consents(limit + 1, read_cursor(cursor))
    page = records[:limit]
    if len(records) > limit:
        response.headers["Link"] = next_page(request, page[-1].user_id)
    return page


def _found(consent: UserConsent | None) -> UserConsent:
    if consent is None:
        raise NotFoundError(NO_RECORD)
    return consent
