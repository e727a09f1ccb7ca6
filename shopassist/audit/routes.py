"""Route that lists the audit log, and the router of administration."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from shopassist.api.dependencies import REGISTERED_SECURITY, AdministratorDep, get_request_id, take_from_container
from shopassist.api.error_handlers import ADMIN_ERRORS, document_errors
from shopassist.api.headers import cut_page, decode_id_cursor
from shopassist.audit.models import READ_AUDIT, AccessReason, AdminAct, AuditRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.text import USER_ID_LENGTH, validate_text

admin_router = APIRouter(prefix="/api/admin", tags=["administration"], dependencies=REGISTERED_SECURITY)

AuditUnitOfWorkDep = Annotated[UnitOfWork[AuditRepositories], Depends(take_from_container("unit_of_work"))]
UserId = Annotated[str, StringConstraints(min_length=1, max_length=USER_ID_LENGTH), AfterValidator(validate_text)]


class AuditQuery(BaseModel):
    """Filter and page of the audit log, and the reason for reading it."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the `Link` header.")
    actor: UserId | None = Field(default=None, description="Acts by this user alone.")
    target: UserId | None = Field(default=None, description="Acts about this user alone.")
    reason: AccessReason | None = None


@admin_router.get("/audit", responses=document_errors(*ADMIN_ERRORS))
async def read_audit(
    request: Request,
    response: Response,
    administrator: AdministratorDep,
    unit_of_work: AuditUnitOfWorkDep,
    query: Annotated[AuditQuery, Query()],
) -> list[AdminAct]:
    """List actions of administrators and operators, newest first, in pages. Reading the log is recorded too."""
    reading = AdminAct(
        actor=administrator.user_id,
        act=READ_AUDIT,
        target=query.target,
        reason=query.reason,
        request_id=get_request_id(),
    )
    return cut_page(await read_entries(unit_of_work, query, reading), query.limit, request, response)


async def read_entries(
    unit_of_work: UnitOfWork[AuditRepositories], query: AuditQuery, reading: AdminAct
) -> list[AdminAct]:
    """Return a page and the entry after it; in the same transaction, record `reading` for later pages."""
    before_id = decode_id_cursor(query.cursor)

    async def read(work: AuditRepositories) -> list[AdminAct]:
        entries = await work.admin_audit.page(query.limit + 1, before_id, query.actor, query.target)
        await work.admin_audit.record(reading)
        return entries

    return await unit_of_work.run(read, repeatable=True)
