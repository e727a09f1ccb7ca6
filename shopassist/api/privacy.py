"""What is held of the caller: given to them, erased, and moved to them from the guest they were."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from shopassist.api.dependencies import (
    IDENTITY,
    REGISTERED,
    CallerDep,
    ErasureServiceDep,
    ExportServiceDep,
    GuestMergeServiceDep,
    RegisteredDep,
    services,
)
from shopassist.api.errors import BODY_ERRORS, IDENTITY_ERRORS, documented
from shopassist.db.resilience.policy import deadline_within
from shopassist.errors import GuestMergedError, NotFoundError
from shopassist.models.erasure import ErasureReceipt
from shopassist.models.export import UserExport
from shopassist.models.guest_merge import GuestMerged, GuestToMerge

router = APIRouter(prefix="/api/user", tags=["privacy"])

PAGE_SECONDS = 30.0
"""How long one page of an export may take; all of it may take as long as the client reads."""

FILE = {"Content-Disposition": 'attachment; filename="shopassist-export.json"', "Cache-Control": "no-store"}


@router.get(
    "/export",
    dependencies=IDENTITY,
    response_class=StreamingResponse,
    responses={200: {"model": UserExport}, **documented(*IDENTITY_ERRORS)},
)
async def export(caller: CallerDep, service: ExportServiceDep) -> StreamingResponse:
    """Everything that is held of the caller, as one JSON document."""
    parts = await service.export(caller.user_id, caller.is_guest)
    return StreamingResponse(each_in_time(parts), headers=FILE, media_type="application/json")


@router.delete(
    "",
    dependencies=IDENTITY,
    responses={
        202: {"model": ErasureReceipt, "description": "The erasure goes on by itself."},
        **documented(*IDENTITY_ERRORS, NotFoundError),
    },
)
async def erase(caller: CallerDep, service: ErasureServiceDep, response: Response) -> ErasureReceipt:
    """Erase the caller. Asking again gives the same receipt, with its end when it was not over yet (202)."""
    receipt = await service.erase(caller.user_id, caller.is_guest)
    if receipt.finished_at is None:
        response.status_code = 202
    response.headers["Cache-Control"] = "no-store"
    return receipt


@router.post(
    "/merge-guest",
    dependencies=REGISTERED,
    responses=documented(*IDENTITY_ERRORS, *BODY_ERRORS, NotFoundError, GuestMergedError),
)
async def merge_guest(
    session: GuestToMerge, request: Request, caller: RegisteredDep, service: GuestMergeServiceDep
) -> GuestMerged:
    """Take over what the caller agreed to and asked as a guest, once. Credits are not added."""
    guest = services(request).guest_sessions().caller(session.session_id.get_secret_value())
    return await service.merge(guest.user_id, caller.user_id)


async def each_in_time(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Parts that each have a time of their own, since a slow client may be at them for longer than a request lives."""
    while True:
        with deadline_within(PAGE_SECONDS):
            part = await anext(parts, None)
        if part is None:
            return
        yield part
