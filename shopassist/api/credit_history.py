"""The history of the caller's credits, as JSON or CSV."""

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field

from shopassist.api.accept import prefers
from shopassist.api.cursors import next_page, read_id
from shopassist.api.dependencies import IDENTITY, CallerDep, CreditServiceDep
from shopassist.api.errors import GUEST_ERRORS, documented
from shopassist.api.staleness import MAY_BE_STALE
from shopassist.models import CreditTransaction, TransactionType
from shopassist.models.ledger import HistoryFilter

router = APIRouter(prefix="/api/user/credits", tags=["credits"], dependencies=IDENTITY)

CSV = "text/csv"
CONTENT: dict[int | str, dict[str, Any]] = {200: {"content": {CSV: {"schema": {"type": "string"}}}, **MAY_BE_STALE}}
SHOWN = [name for name, field in CreditTransaction.model_fields.items() if not field.exclude]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets calculate."""


def in_utc(instant: datetime) -> datetime:
    """`instant` in UTC. Raises `ValueError` where that is no date any more."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a date in UTC, too") from None


Instant = Annotated[AwareDatetime, AfterValidator(in_utc)]


class HistoryQuery(BaseModel):
    """Which rows, and which page of them."""

    limit: int = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=64, description="From the `Link` header.")
    transaction_type: TransactionType | None = Field(default=None, alias="type")
    since: Instant | None = Field(default=None, alias="from", description="Inclusive, with its offset from UTC.")
    until: Instant | None = Field(default=None, alias="to", description="Exclusive, with its offset from UTC.")

    @property
    def wanted(self) -> HistoryFilter:
        """The rows that are asked for, on whichever page."""
        return HistoryFilter(self.transaction_type, self.since, self.until)


@router.get("/transactions", response_model=list[CreditTransaction], responses={**CONTENT, **documented(*GUEST_ERRORS)})
async def list_transactions(
    request: Request,
    response: Response,
    caller: CallerDep,
    service: CreditServiceDep,
    query: Annotated[HistoryQuery, Query()],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response | Sequence[CreditTransaction]:
    """The caller's credits come and gone, newest first, a page at a time; the `Link` header has the next (RFC 8288).

    CSV to clients that prefer it. What is past its retention is one row of type `opening`.
    """
    rows = await service.own_history(
        caller.user_id, caller.is_guest, query.limit + 1, read_id(query.cursor), query.wanted, caller.network
    )
    page = rows[: query.limit]
    headers = {"Vary": "Accept"}
    if len(rows) > query.limit:
        headers["Link"] = next_page(request, str(page[-1].id))
    if prefers(accept, CSV):
        headers["Content-Disposition"] = 'attachment; filename="credit-transactions.csv"'
        return Response(as_csv(page), headers=headers, media_type=CSV)
    response.headers.update(headers)
    return page


def as_csv(rows: Sequence[CreditTransaction]) -> str:
    """The public columns under their names. Text that a spreadsheet would calculate is kept from it by a `'`."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(SHOWN)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in SHOWN])
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
