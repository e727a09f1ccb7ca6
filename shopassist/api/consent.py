"""What the caller has agreed to."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from shopassist.api.consenting import origin, request_id, subject_of
from shopassist.api.cursors import next_page, read_cursor
from shopassist.api.dependencies import REGISTERED, AdministratorDep, ConsentServiceDep, RegisteredDep, services
from shopassist.api.errors import ADMIN_ERRORS, BODY_ERRORS, IDENTITY_ERRORS, documented
from shopassist.api.staleness import MAY_BE_STALE
from shopassist.errors import NotFoundError, TermsNotAcceptedError
from shopassist.models import AdminAct, UserConsent, UserConsentCreate, UserConsentUpdate
from shopassist.models.admin_audit import READ_CONSENTS, WhyRead
from shopassist.models.consent_history import ConsentSource, Origin

router = APIRouter(prefix="/api/consent", tags=["consent"], dependencies=REGISTERED)


async def recording(request: Request, caller: RegisteredDep) -> Origin:
    """How what is recorded reached us; what the browser's signal says is recorded first."""
    subject, how = subject_of(caller), origin(request, ConsentSource.RECORD)
    services(request).consent_gate().forget(subject)
    if how.privacy_signal:
        await services(request).consent_history().heed_signal(subject, how)
    return how


RecordingDep = Annotated[Origin, Depends(recording)]

NO_RECORD = "There is no consent record for this user."


@router.post("", responses=documented(*IDENTITY_ERRORS, *BODY_ERRORS, TermsNotAcceptedError))
@router.post("/", include_in_schema=False)
async def create_consent(
    consent: UserConsentCreate, how: RecordingDep, caller: RegisteredDep, service: ConsentServiceDep
) -> UserConsent:
    """Agree to the terms, once. With `Sec-GPC: 1` marketing is off whatever is sent."""
    return await service.create_consent(caller.user_id, consent, how)


@router.get("/me", responses=documented(*IDENTITY_ERRORS, NotFoundError), dependencies=[Depends(recording)])
async def read_consent(caller: RegisteredDep, service: ConsentServiceDep) -> UserConsent:
    """What the caller has agreed to."""
    return _found(await service.get_consent(caller.user_id))


@router.put("/me", responses=documented(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError))
async def update_consent(
    update: UserConsentUpdate, how: RecordingDep, caller: RegisteredDep, service: ConsentServiceDep
) -> UserConsent:
    """Give or withdraw consent to marketing. With `Sec-GPC: 1` it is off whatever is sent."""
    return _found(await service.update_consent(caller.user_id, update, how))


@router.get("/admin/all", responses={200: MAY_BE_STALE, **documented(*ADMIN_ERRORS)})
async def list_consents(
    request: Request,
    response: Response,
    administrator: AdministratorDep,
    service: ConsentServiceDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=1024, description="From the `Link` header.")] = None,
    reason: Annotated[WhyRead | None, Query()] = None,
) -> list[UserConsent]:
    """All records, a page at a time; the `Link` header has the next page (RFC 8288). Looking goes to the audit."""
    act = AdminAct(actor=administrator.user_id, act=READ_CONSENTS, reason=reason, request_id=request_id())
    records = await service.list_consents(limit + 1, read_cursor(cursor), act)
    page = records[:limit]
    if len(records) > limit:
        response.headers["Link"] = next_page(request, page[-1].user_id)
    return page


def _found(consent: UserConsent | None) -> UserConsent:
    if consent is None:
        raise NotFoundError(NO_RECORD)
    return consent
