"""Routes of consent records, decisions and notices, and the dependency that requires consent to the terms."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from shopassist.api.dependencies import (
    CALLER_SECURITY,
    REGISTERED_SECURITY,
    AdministratorDep,
    CallerDep,
    RegisteredDep,
    get_request_id,
    identify_caller,
    require_registered,
    take_from_container,
)
from shopassist.api.error_handlers import ADMIN_ERRORS, BODY_ERRORS, IDENTITY_ERRORS, document_errors
from shopassist.api.headers import STALE_RESPONSE, cut_page, decode_cursor, decode_id_cursor, parse_languages
from shopassist.audit.models import READ_CONSENTS, AccessReason, AdminAct
from shopassist.audit.routes import admin_router
from shopassist.consent.models import (
    ROUTE_LENGTH,
    ConsentDecisions,
    ConsentHistoryEntry,
    ConsentNotice,
    ConsentProvenance,
    ConsentSource,
    ConsentState,
    ConsentSubject,
    Locale,
    NoticePublication,
    Purpose,
    UserConsent,
    UserConsentCreate,
    UserConsentUpdate,
)
from shopassist.consent.notices import ConsentGate, NoticeService
from shopassist.consent.service import ConsentHistoryService, UserConsentService
from shopassist.errors import NotFoundError, NoticeExistsError, NoticeOutdatedError, TermsNotAcceptedError
from shopassist.identity.caller import Caller

take_consent_gate = take_from_container("consent_gate")

ConsentGateDep = Annotated[ConsentGate, Depends(take_consent_gate)]
ConsentServiceDep = Annotated[UserConsentService, Depends(take_from_container("consent_service"))]
ConsentHistoryDep = Annotated[ConsentHistoryService, Depends(take_from_container("consent_history_service"))]
NoticeServiceDep = Annotated[NoticeService, Depends(take_from_container("notice_service"))]


def build_provenance(request: Request, source: ConsentSource) -> ConsentProvenance:
    """Build the provenance of a decision that the request makes, with the signal of Global Privacy Control."""
    route = f"{request.method} {getattr(request.scope.get('route'), 'path', request.url.path)}"
    has_signal = request.headers.get("Sec-GPC") == "1"
    return ConsentProvenance(source, route[:ROUTE_LENGTH], get_request_id(), has_signal)


def caller_to_subject(caller: Caller) -> ConsentSubject:
    """Return the consent subject of a caller."""
    return ConsentSubject(caller.user_id, caller.is_guest)


async def require_consent(request: Request) -> Caller:
    """Return the caller. Raises `ConsentRequiredError` when the caller must agree to the terms first."""
    caller = await identify_caller(request)
    gate: ConsentGate = await take_consent_gate(request)
    await gate.check(caller_to_subject(caller), build_provenance(request, ConsentSource.CONSENTS))
    return caller


ConsentingCallerDep = Annotated[Caller, Depends(require_consent)]


@admin_router.post("/notices", responses=document_errors(*ADMIN_ERRORS, *BODY_ERRORS, NoticeExistsError))
async def publish_notice(
    publication: NoticePublication,
    administrator: AdministratorDep,
    service: NoticeServiceDep,
    reason: Annotated[AccessReason | None, Query()] = None,
) -> ConsentNotice:
    """Publish a text for good. The same again changes nothing."""
    return await service.publish(publication, administrator.user_id, reason, get_request_id())


def record_signal(source: ConsentSource) -> Callable[..., Awaitable[ConsentProvenance]]:
    """Return a dependency that records the privacy signal and returns the provenance of the request's decision."""

    async def record(
        request: Request, caller: CallerDep, gate: ConsentGateDep, history: ConsentHistoryDep
    ) -> ConsentProvenance:
        subject, provenance = caller_to_subject(caller), build_provenance(request, source)
        gate.forget_signal(subject)
        await history.apply_privacy_signal(subject, provenance)
        return provenance

    return record


RecordProvenanceDep = Annotated[ConsentProvenance, Depends(record_signal(ConsentSource.RECORD))]
ProvenanceDep = Annotated[ConsentProvenance, Depends(record_signal(ConsentSource.CONSENTS))]

# Guests are refused before their signal would be recorded.
record_router = APIRouter(
    prefix="/api/consent", tags=["consent"], dependencies=[*REGISTERED_SECURITY, Depends(require_registered)]
)


@record_router.post("", responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, TermsNotAcceptedError))
@record_router.post("/", include_in_schema=False)
async def create_consent(
    consent: UserConsentCreate, provenance: RecordProvenanceDep, caller: RegisteredDep, service: ConsentServiceDep
) -> UserConsent:
    """Agree to the terms, once. With `Sec-GPC: 1` marketing is off whatever is sent."""
    return await service.create_consent(caller.user_id, consent, provenance)


@record_router.get("/me", responses=document_errors(*IDENTITY_ERRORS, NotFoundError))
async def read_consent(_: RecordProvenanceDep, caller: RegisteredDep, service: ConsentServiceDep) -> UserConsent:
    """Return the consent record of the caller."""
    return _require_record(await service.get_consent(caller.user_id))


@record_router.put("/me", responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError))
async def update_consent(
    update: UserConsentUpdate, provenance: RecordProvenanceDep, caller: RegisteredDep, service: ConsentServiceDep
) -> UserConsent:
    """Give or withdraw consent to marketing. With `Sec-GPC: 1` it is off whatever is sent."""
    return _require_record(await service.update_consent(caller.user_id, update, provenance))


@record_router.get("/admin/all", responses={200: STALE_RESPONSE, **document_errors(*ADMIN_ERRORS)})
async def list_consents(
    request: Request,
    response: Response,
    administrator: AdministratorDep,
    service: ConsentServiceDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=1024, description="From the `Link` header.")] = None,
    reason: Annotated[AccessReason | None, Query()] = None,
) -> list[UserConsent]:
    """List all records in pages; the `Link` header has the next page (RFC 8288). Each read is in the audit log."""
    act = AdminAct(actor=administrator.user_id, act=READ_CONSENTS, reason=reason, request_id=get_request_id())
    records = await service.list_consents(limit + 1, decode_cursor(cursor), act)
    return cut_page(records, limit, request, response, key="user_id")


def _require_record(consent: UserConsent | None) -> UserConsent:
    if consent is None:
        raise NotFoundError("There is no consent record for this user.")
    return consent


purpose_router = APIRouter(prefix="/api/consents", tags=["consent"], dependencies=CALLER_SECURITY)


@purpose_router.post("", responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError, NoticeOutdatedError))
async def decide(
    decisions: ConsentDecisions, provenance: ProvenanceDep, caller: CallerDep, service: ConsentHistoryDep
) -> list[ConsentState]:
    """Say yes or no, each purpose for itself: all is recorded or nothing. Returns the state of every purpose.

    A yes names the notice that was shown, by its `id` from `/api/notices`. With `Sec-GPC: 1` marketing is turned off,
    and a yes to it is refused.
    """
    return await service.decide(caller_to_subject(caller), decisions.consents, provenance)


@purpose_router.get("", responses=document_errors(*IDENTITY_ERRORS))
async def read_state(_: ProvenanceDep, caller: CallerDep, service: ConsentHistoryDep) -> list[ConsentState]:
    """List the state of each purpose and its notice. Without a `timestamp` nothing was decided, which counts as no."""
    return await service.get_states(caller_to_subject(caller))


@purpose_router.get("/history", responses=document_errors(*IDENTITY_ERRORS))
async def read_history(
    request: Request,
    response: Response,
    _: ProvenanceDep,
    caller: CallerDep,
    service: ConsentHistoryDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="From the `Link` header.")] = None,
) -> list[ConsentHistoryEntry]:
    """List grants and withdrawals, newest first, in pages; the `Link` header has the next page (RFC 8288)."""
    entries = await service.list_history(caller_to_subject(caller), limit + 1, decode_id_cursor(cursor))
    return cut_page(entries, limit, request, response)


@purpose_router.delete("/{purpose}", responses=document_errors(*IDENTITY_ERRORS, NotFoundError))
async def withdraw(
    purpose: Purpose, provenance: ProvenanceDep, caller: CallerDep, service: ConsentHistoryDep
) -> ConsentState:
    """Take consent back, at once. Doing it again changes nothing."""
    return await service.withdraw(caller_to_subject(caller), purpose, provenance)


notice_router = APIRouter(tags=["consent"])


@notice_router.get("/api/notices", responses=document_errors())
async def read_notices(
    response: Response,
    service: NoticeServiceDep,
    locale: Annotated[Locale | None, Query()] = None,
    accept_language: Annotated[str, Header(include_in_schema=False)] = "",
) -> list[ConsentNotice]:
    """List the current text for each purpose, in `locale` or by `Accept-Language`, else in its first language."""
    response.headers["Vary"] = "Accept-Language"
    return await service.get_current([locale] if locale else parse_languages(accept_language))


@notice_router.get("/api/notices/{notice_id}", responses=document_errors(NotFoundError))
async def read_notice(notice_id: Annotated[int, Path(ge=1, le=2**63 - 1)], service: NoticeServiceDep) -> ConsentNotice:
    """Return one text as it was published, including one that is no longer current."""
    return await service.get_notice(notice_id)


@notice_router.get("/.well-known/gpc.json")
async def read_privacy_control() -> dict[str, Any]:
    """Declare support for `Sec-GPC: 1` (Global Privacy Control, support resource)."""
    return {"gpc": True, "lastUpdate": "2026-11-25"}
