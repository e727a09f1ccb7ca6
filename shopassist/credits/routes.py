"""Routes for credit status, credit history (JSON or CSV) and adjustments."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from shopassist.api.dependencies import (
    CALLER_SECURITY,
    REGISTERED_SECURITY,
    AdministratorDep,
    CallerDep,
    GuestSessionsDep,
    IdempotencyKey,
    RegisteredDep,
    create_quota,
    get_network,
    get_request_id,
    take_from_container,
)
from shopassist.api.error_handlers import ADMIN_ERRORS, BODY_ERRORS, IDENTITY_ERRORS, document_errors
from shopassist.api.fast_route import FastRoute, build_json_response
from shopassist.api.headers import STALE_RESPONSE, cut_page, decode_id_cursor, is_preferred
from shopassist.credits.models import (
    CreditAdjusted,
    CreditAdjustment,
    CreditStatus,
    CreditTransaction,
    GuestSession,
    TransactionType,
    UserCreditStatus,
)
from shopassist.credits.ports import HistoryFilter
from shopassist.credits.service import AdjustmentService, CreditService
from shopassist.errors import GuestLimitError, NotFoundError, OverdrawError, RateLimitedError
from shopassist.identity.rate_limits import RateLimitKind

admin_router = APIRouter(prefix="/api/admin", tags=["administration"], dependencies=REGISTERED_SECURITY)

AdjustmentServiceDep = Annotated[AdjustmentService, Depends(take_from_container("adjustment_service"))]


# A subject may contain slashes.
@admin_router.post(
    "/credits/{user_id:path}/adjust",
    responses=document_errors(*ADMIN_ERRORS, *BODY_ERRORS, NotFoundError, OverdrawError),
)
async def adjust_credits(
    user_id: str,
    change: CreditAdjustment,
    response: Response,
    administrator: AdministratorDep,
    service: AdjustmentServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> CreditAdjusted:
    """Add credits to an account or remove them. A repeat with the same `Idempotency-Key` changes nothing again."""
    adjusted, replayed = await service.adjust(user_id, change, administrator.user_id, idempotency_key, get_request_id())
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return adjusted


router = APIRouter(
    prefix="/api",
    tags=["credits"],
    dependencies=CALLER_SECURITY,
    responses=document_errors(*IDENTITY_ERRORS),
    route_class=FastRoute,
)

CreditServiceDep = Annotated[CreditService, Depends(take_from_container("credit_service"))]


@router.get("/user/credits", response_model=UserCreditStatus)
@router.get("/user/credits/status", name="read_credits_status", response_model=UserCreditStatus)
@router.get("/credits/status", name="read_status_of_credits", response_model=UserCreditStatus)
async def read_credits(caller: CallerDep, service: CreditServiceDep) -> Response:
    """Return the caller's available credits and the time of the next reset."""
    status = await service.get_caller_status(caller.user_id, caller.is_guest, caller.network)
    return build_json_response(UserCreditStatus(user_id=caller.user_id, **status.__dict__))


history_router = APIRouter(prefix="/api/user/credits", tags=["credits"], dependencies=CALLER_SECURITY)

CSV_MEDIA_TYPE = "text/csv"
HISTORY_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {CSV_MEDIA_TYPE: {"schema": {"type": "string"}}}, **STALE_RESPONSE}
}
CSV_COLUMNS = [name for name, field in CreditTransaction.model_fields.items() if not field.exclude]
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet evaluates as a formula."""


def to_utc(instant: datetime) -> datetime:
    """Return `instant` in UTC. Raises `ValueError` if that is outside the range of dates."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a date in UTC, too") from None


UtcInstant = Annotated[AwareDatetime, AfterValidator(to_utc)]


class HistoryQuery(BaseModel):
    """Filter and page of the credit history."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the `Link` header.")
    transaction_type: TransactionType | None = Field(default=None, alias="type")
    since: UtcInstant | None = Field(default=None, alias="from", description="Inclusive, with its offset from UTC.")
    until: UtcInstant | None = Field(default=None, alias="to", description="Exclusive, with its offset from UTC.")

    @property
    def filter(self) -> HistoryFilter:
        """The filter without the page."""
        return HistoryFilter(self.transaction_type, self.since, self.until)


@history_router.get(
    "/transactions",
    response_model=list[CreditTransaction],
    responses={**HISTORY_RESPONSES, **document_errors(*IDENTITY_ERRORS)},
)
async def list_transactions(
    request: Request,
    response: Response,
    caller: CallerDep,
    service: CreditServiceDep,
    query: Annotated[HistoryQuery, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response | Sequence[CreditTransaction]:
    """List the caller's transactions, newest first; the `Link` header has the next page (RFC 8288).

    Clients that prefer CSV get CSV. Transactions past their retention are one row of type `opening`.
    """
    rows = await service.get_caller_history(
        caller.user_id, caller.is_guest, query.limit + 1, decode_id_cursor(query.cursor), query.filter, caller.network
    )
    response.headers["Vary"] = "Accept"
    page = cut_page(rows, query.limit, request, response)
    if is_preferred(accept, CSV_MEDIA_TYPE):
        headers = {**response.headers, "Content-Disposition": 'attachment; filename="credit-transactions.csv"'}
        return Response(format_csv(page), headers=headers, media_type=CSV_MEDIA_TYPE)
    return page


def format_csv(rows: Sequence[CreditTransaction]) -> str:
    """Return the public columns as CSV. Text that a spreadsheet would evaluate is prefixed with `'`."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        writer.writerow([_format_cell(getattr(row, name)) for name in CSV_COLUMNS])
    return file.getvalue()


def _format_cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_PREFIXES) else value


guest_router = APIRouter(prefix="/api", tags=["guests"])


@guest_router.post("/guest", responses=document_errors(GuestLimitError, RateLimitedError))
async def begin_session(request: Request, sessions: GuestSessionsDep, service: CreditServiceDep) -> GuestSession:
    """Create a guest with credits of their own. Send `session_id` as `X-Session-ID`, and keep it secret.

    The guest counts towards the daily limit of the client network. The session does not expire.
    """
    request.scope["is_personal"] = True
    network = get_network(request)
    caller, session_id = sessions.issue(network)
    create_quota(request, RateLimitKind.READS, caller).consume()
    account = await service.get_caller_account(caller.user_id, caller.is_guest, network)
    status = service.build_status(account)
    return GuestSession(session_id=session_id, user_id=account.user_id, **status.__dict__)


profile_router = APIRouter(
    prefix="/api/user", tags=["user"], dependencies=REGISTERED_SECURITY, responses=document_errors(*IDENTITY_ERRORS)
)


class Profile(BaseModel):
    """A registered user: claims of the access token, and the credits."""

    user_id: str
    email: str | None
    name: str | None
    picture: str | None
    credits: CreditStatus


@profile_router.get("/me")
async def read_profile(caller: RegisteredDep, service: CreditServiceDep) -> Profile:
    """Return the caller's profile."""
    account = await service.get_caller_account(caller.user_id, caller.is_guest, caller.network)
    return Profile(
        user_id=caller.user_id,
        email=caller.email,
        name=caller.name,
        picture=caller.picture,
        credits=service.build_status(account),
    )
