"""FastAPI dependencies that enforce consent and apply `Sec-GPC`."""

from typing import Annotated

from fastapi import Depends, Request

from shopassist.api.dependencies import get_container, get_request_id, identify_caller, take_from_container
from shopassist.consent.models import ROUTE_LENGTH, ConsentProvenance, ConsentSource, ConsentSubject
from shopassist.consent.notices import NoticeService
from shopassist.consent.service import ConsentHistoryService, UserConsentService
from shopassist.identity.caller import Caller

SIGNAL_HEADER = "Sec-GPC"
"""Global Privacy Control, in a browser's own words."""


def build_provenance(request: Request, source: ConsentSource) -> ConsentProvenance:
    """How what the request says reached us."""
    route = f"{request.method} {getattr(request.scope.get('route'), 'path', request.url.path)}"
    return ConsentProvenance(source, route[:ROUTE_LENGTH], get_request_id(), has_privacy_signal(request))


def has_privacy_signal(request: Request) -> bool:
    """Whether the browser says no to what its user did not ask for."""
    return request.headers.get(SIGNAL_HEADER) == "1"


def caller_to_subject(caller: Caller) -> ConsentSubject:
    """The caller, as consent knows them."""
    return ConsentSubject(caller.user_id, caller.is_guest)


async def require_consent(request: Request) -> Caller:
    """A caller who may ask: one who agreed to the terms, where that is required.

    Raises `ConsentRequiredError` for others.
    """
    caller = await identify_caller(request)
    gate = get_container(request).consent_gate()
    if gate.required or has_privacy_signal(request):
        await gate.check(caller_to_subject(caller), build_provenance(request, ConsentSource.CONSENTS))
    return caller


ConsentingCallerDep = Annotated[Caller, Depends(require_consent)]

ConsentServiceDep = Annotated[UserConsentService, Depends(take_from_container("consent_service"))]

ConsentHistoryDep = Annotated[ConsentHistoryService, Depends(take_from_container("consent_history_service"))]
NoticeServiceDep = Annotated[NoticeService, Depends(take_from_container("notice_service"))]
