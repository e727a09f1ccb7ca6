"""Routes to export, erase and merge personal data."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from starlette.responses import StreamingResponse

from shopassist.api.dependencies import (
    CALLER_SECURITY,
    REGISTERED_SECURITY,
    CallerDep,
    GuestSessionsDep,
    RegisteredDep,
    require_registered,
    take_from_container,
)
from shopassist.api.error_handlers import BODY_ERRORS, IDENTITY_ERRORS, document_errors
from shopassist.consent.models import ConsentProvenance, ConsentSource
from shopassist.consent.routes import record_signal
from shopassist.db.resilience import limit_time
from shopassist.errors import GuestMergedError, NotFoundError, SessionRefusedError
from shopassist.identity.caller import require_session_id
from shopassist.privacy.models import ErasureReceipt, GuestMerged, GuestToMerge, UserExport
from shopassist.privacy.service import UNKNOWN_GUEST, ErasureService, ExportService, GuestMergeService

router = APIRouter(prefix="/api/user", tags=["privacy"])

PAGE_TIMEOUT_SECONDS = 30.0
"""Time limit of one page of an export; the whole export has none."""

EXPORT_HEADERS = {"Content-Disposition": 'attachment; filename="shopassist-export.json"'}

ExportServiceDep = Annotated[ExportService, Depends(take_from_container("export_service"))]
ErasureServiceDep = Annotated[ErasureService, Depends(take_from_container("erasure_service"))]
GuestMergeServiceDep = Annotated[GuestMergeService, Depends(take_from_container("guest_merge_service"))]
MergeProvenanceDep = Annotated[ConsentProvenance, Depends(record_signal(ConsentSource.GUEST_MERGE))]


@router.get(
    "/export",
    dependencies=CALLER_SECURITY,
    response_class=StreamingResponse,
    responses={200: {"model": UserExport}, **document_errors(*IDENTITY_ERRORS)},
)
async def export(caller: CallerDep, service: ExportServiceDep) -> StreamingResponse:
    """Export everything that is held of the caller, as one JSON document."""
    parts = await service.export(caller.user_id, caller.is_guest)
    return StreamingResponse(limit_time_per_part(parts), headers=EXPORT_HEADERS, media_type="application/json")


@router.delete(
    "",
    dependencies=CALLER_SECURITY,
    responses={
        202: {"model": ErasureReceipt, "description": "The erasure goes on by itself."},
        **document_errors(*IDENTITY_ERRORS, NotFoundError),
    },
)
async def erase(caller: CallerDep, service: ErasureServiceDep, response: Response) -> ErasureReceipt:
    """Erase the caller. Asking again gives the same receipt, with its end when it was not over yet (202)."""
    receipt = await service.erase(caller.user_id, caller.is_guest)
    if receipt.finished_at is None:
        response.status_code = 202
    return receipt


@router.post(
    "/merge-guest",
    # Guests are refused before their signal would be recorded.
    dependencies=[*REGISTERED_SECURITY, Depends(require_registered)],
    responses=document_errors(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError, GuestMergedError),
)
async def merge_guest(
    session: GuestToMerge,
    sessions: GuestSessionsDep,
    provenance: MergeProvenanceDep,
    caller: RegisteredDep,
    service: GuestMergeServiceDep,
) -> GuestMerged:
    """Move what the caller agreed to and asked as a guest to the user, once. Credits are not added."""
    session_id = require_session_id(session.session_id.get_secret_value(), "session_id")
    try:
        guest = sessions.verify(session_id, field="session_id")
    except SessionRefusedError:
        raise NotFoundError(UNKNOWN_GUEST) from None
    return await service.merge(guest.user_id, caller.user_id, provenance)


async def limit_time_per_part(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts with a time limit each, since a slow client may read for longer than a request may take."""
    while True:
        with limit_time(PAGE_TIMEOUT_SECONDS):
            part = await anext(parts, None)
        if part is None:
            return
        yield part
