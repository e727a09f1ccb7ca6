"""Consent that proves itself: what the caller agrees to, purpose by purpose, and how that came about."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from shopassist.api.consenting import origin, subject_of
from shopassist.api.cursors import next_page, read_id
from shopassist.api.dependencies import IDENTITY, CallerDep, ConsentHistoryDep, services
from shopassist.api.errors import BODY_ERRORS, IDENTITY_ERRORS, documented
from shopassist.errors import NotFoundError, NoticeOutdatedError
from shopassist.models.consent_history import (
    ConsentDecisions,
    ConsentHistoryEntry,
    ConsentSource,
    ConsentState,
    Origin,
    Subject,
)
from shopassist.models.notice import Purpose

router = APIRouter(prefix="/api/consents", tags=["consent"], dependencies=IDENTITY)


async def deciding(request: Request, caller: CallerDep) -> tuple[Subject, Origin]:
    """Whose consent the request is about, and how it reached us; the next signal of theirs is looked into again."""
    subject = subject_of(caller)
    services(request).consent_gate().forget(subject)
    return subject, origin(request, ConsentSource.CONSENTS)


DecidingDep = Annotated[tuple[Subject, Origin], Depends(deciding)]


@router.post("", responses=documented(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError, NoticeOutdatedError))
async def decide(decisions: ConsentDecisions, deciding: DecidingDep, service: ConsentHistoryDep) -> list[ConsentState]:
    """Say yes or no, each purpose for itself: all is recorded or nothing. Where every purpose stands after that.

    A yes names the notice that was shown, by its `id` from `/api/notices`. With `Sec-GPC: 1` marketing is turned off,
    and a yes to it is refused.
    """
    subject, how = deciding
    return await service.decide(subject, decisions.consents, how)


@router.get("", responses=documented(*IDENTITY_ERRORS))
async def read_state(deciding: DecidingDep, service: ConsentHistoryDep) -> list[ConsentState]:
    """Where each purpose stands, and the notice it refers to. Without a `timestamp` nothing was decided: that is no."""
    subject, how = deciding
    if how.privacy_signal:
        await service.heed_signal(subject, how)
    return await service.state(subject)


@router.get("/history", responses=documented(*IDENTITY_ERRORS))
async def read_history(
    request: Request,
    response: Response,
    deciding: DecidingDep,
    service: ConsentHistoryDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="From the `Link` header.")] = None,
) -> list[ConsentHistoryEntry]:
    """Every grant and withdrawal, newest first, a page at a time; the `Link` header has the next (RFC 8288)."""
    subject, how = deciding
    if how.privacy_signal:
        await service.heed_signal(subject, how)
    entries = await service.history(subject, limit + 1, read_id(cursor))
    page = entries[:limit]
    if len(entries) > limit:
        response.headers["Link"] = next_page(request, str(page[-1].id))
    return page


@router.delete("/{purpose}", responses=documented(*IDENTITY_ERRORS, NotFoundError))
async def withdraw(purpose: Purpose, deciding: DecidingDep, service: ConsentHistoryDep) -> ConsentState:
    """Take consent back, at once. Doing it again changes nothing."""
    subject, how = deciding
    return await service.withdraw(subject, purpose, how)
