"""Routes of consent records, consent decisions, notices and the GPC support resource."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from shopassist.api.dependencies import (
    CALLER_SECURITY,
    REGISTERED_SECURITY,
    AdministratorDep,
    CallerDep,
    RegisteredDep,
    get_container,
    get_request_id,
)
from shopassist.api.error_handlers import ADMIN_ERRORS, BODY_ERRORS, IDENTITY_ERRORS, document_errors
from shopassist.api.headers import STALE_RESPONSE, parse_languages
from shopassist.api.pagination import build_next_link, decode_cursor, decode_id_cursor
from shopassist.audit.models import READ_CONSENTS, AccessReason, AdminAct
from shopassist.audit.routes import admin_router
from shopassist.consent.dependencies import (
    ConsentHistoryDep,
    ConsentServiceDep,
    NoticeServiceDep,
    build_provenance,
    caller_to_subject,
)
from shopassist.consent.models import (
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
from shopassist.errors import NotFoundError, NoticeExistsError, NoticeOutdatedError, TermsNotAcceptedError


@admin_router.post("/notices", responses=document_errors(*ADMIN_ERRORS, *BODY_ERRORS, NoticeExistsError))
async def publish_notice(
    publication: NoticePublication,
    administrator: AdministratorDep,
    service: NoticeServiceDep,
    reason: Annotated[AccessReason | None, Query()] = None,
) -> ConsentNotice:
    """Publish a text for good. The same again changes nothing."""
    return await service.publish(publication, administrator.user_id, reason, get_request_id())


record_router = APIRouter(prefix="/api/consent", tags=["consent"], dependencies=REGISTERED_SECURITY)


async def record_signal(request: Request, caller: RegisteredDep) -> ConsentProvenance:
    """How what is recorded reached us; what the browser's signal says is recorded first."""
    subject, how = caller_to_subject(caller), build_provenance(request, ConsentSource.RECORD)
    get_container(request).consent_gate().forget_signal(subject)
    if how.privacy_signal:
        await get_container(request).consent_history_service().apply_privacy_signal(subject, how)
    return how


RecordProvenanceDep = Annotated[ConsentProvenance, Depends(record_signal)]

NO_CONSENT_RECORD = "There is no consent record for this user."


@record_router.post("", responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, TermsNotAcceptedError))
@record_router.post("/", include_in_schema=False)
async def create_consent(
    consent: UserConsentCreate, how: RecordProvenanceDep, caller: RegisteredDep, service: ConsentServiceDep
) -> UserConsent:
    """Agree to the terms, once. With `Sec-GPC: 1` marketing is off whatever is sent."""
    return await service.create_consent(caller.user_id, consent, how)


@record_router.get(
    "/me", responses=document_errors(*IDENTITY_ERRORS, NotFoundError), dependencies=[Depends(record_signal)]
)
async def read_consent(caller: RegisteredDep, service: ConsentServiceDep) -> UserConsent:
    """What the caller has agreed to."""
    return _require_record(await service.get_consent(caller.user_id))


@record_router.put("/me", responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError))
async def update_consent(
    update: UserConsentUpdate, how: RecordProvenanceDep, caller: RegisteredDep, service: ConsentServiceDep
) -> UserConsent:
    """Give or withdraw consent to marketing. With `Sec-GPC: 1` it is off whatever is sent."""
    return _require_record(await service.update_consent(caller.user_id, update, how))


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
    """All records, a page at a time; the `Link` header has the next page (RFC 8288). Looking goes to the audit."""
    act = AdminAct(actor=administrator.user_id, act=READ_CONSENTS, reason=reason, request_id=get_request_id())
    records = await service.list_consents(limit + 1, decode_cursor(cursor), act)
    page = records[:limit]
    if len(records) > limit:
        response.headers["Link"] = build_next_link(request, page[-1].user_id)
    return page


def _require_record(consent: UserConsent | None) -> UserConsent:
    if consent is None:
        raise NotFoundError(NO_CONSENT_RECORD)
    return consent


purpose_router = APIRouter(prefix="/api/consents", tags=["consent"], dependencies=CALLER_SECURITY)


async def get_subject_and_provenance(request: Request, caller: CallerDep) -> tuple[ConsentSubject, ConsentProvenance]:
    """Whose consent the request is about, and how it reached us; the next signal of theirs is looked into again."""
    subject = caller_to_subject(caller)
    get_container(request).consent_gate().forget_signal(subject)
    return subject, build_provenance(request, ConsentSource.CONSENTS)


SubjectAndProvenanceDep = Annotated[tuple[ConsentSubject, ConsentProvenance], Depends(get_subject_and_provenance)]


@purpose_router.post("", responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError, NoticeOutdatedError))
async def decide(
    decisions: ConsentDecisions, deciding: SubjectAndProvenanceDep, service: ConsentHistoryDep
) -> list[ConsentState]:
    """Say yes or no, each purpose for itself: all is recorded or nothing. Where every purpose stands after that.

    A yes names the notice that was shown, by its `id` from `/api/notices`. With `Sec-GPC: 1` marketing is turned off,
    and a yes to it is refused.
    """
    subject, how = deciding
    return await service.decide(subject, decisions.consents, how)


@purpose_router.get("", responses=document_errors(*IDENTITY_ERRORS))
async def read_state(deciding: SubjectAndProvenanceDep, service: ConsentHistoryDep) -> list[ConsentState]:
    """Where each purpose stands, and the notice it refers to. Without a `timestamp` nothing was decided: that is no."""
    subject, how = deciding
    if how.privacy_signal:
        await service.apply_privacy_signal(subject, how)
    return await service.get_states(subject)


@purpose_router.get("/history", responses=document_errors(*IDENTITY_ERRORS))
async def read_history(
    request: Request,
    response: Response,
    deciding: SubjectAndProvenanceDep,
    service: ConsentHistoryDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="From the `Link` header.")] = None,
) -> list[ConsentHistoryEntry]:
    """Every grant and withdrawal, newest first, a page at a time; the `Link` header has the next (RFC 8288)."""
    subject, how = deciding
    if how.privacy_signal:
        await service.apply_privacy_signal(subject, how)
    entries = await service.list_history(subject, limit + 1, decode_id_cursor(cursor))
    page = entries[:limit]
    if len(entries) > limit:
        response.headers["Link"] = build_next_link(request, str(page[-1].id))
    return page


@purpose_router.delete("/{purpose}", responses=document_errors(*IDENTITY_ERRORS, NotFoundError))
async def withdraw(purpose: Purpose, deciding: SubjectAndProvenanceDep, service: ConsentHistoryDep) -> ConsentState:
    """Take consent back, at once. Doing it again changes nothing."""
    subject, how = deciding
    return await service.withdraw(subject, purpose, how)


GPC_LAST_UPDATE = "2026-11-25"

notice_router = APIRouter(tags=["consent"])


@notice_router.get("/api/notices", responses=document_errors())
async def read_notices(
    response: Response,
    service: NoticeServiceDep,
    locale: Annotated[Locale | None, Query()] = None,
    accept_language: Annotated[str, Header(include_in_schema=False)] = "",
) -> list[ConsentNotice]:
    """The current text for each purpose, in `locale` or by `Accept-Language`, else in its first language."""
    response.headers["Vary"] = "Accept-Language"
    return await service.get_current([locale] if locale else parse_languages(accept_language))


@notice_router.get("/api/notices/{notice_id}", responses=document_errors(NotFoundError))
async def read_notice(notice_id: Annotated[int, Path(ge=1, le=2**63 - 1)], service: NoticeServiceDep) -> ConsentNotice:
    """One text, as it was published: also one that is not current any more."""
    return await service.get_notice(notice_id)


@notice_router.get("/.well-known/gpc.json")
async def read_privacy_control() -> dict[str, Any]:
    """That `Sec-GPC: 1` is heeded here (Global Privacy Control, support resource)."""
    return {"gpc": True, "lastUpdate": GPC_LAST_UPDATE}
