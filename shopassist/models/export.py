"""Everything held of a person, as they are given it."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

EXPORT_FORMAT = "shopassist.user-export"
EXPORT_VERSION = 1


class UserExport(BaseModel):
    """Everything held of one person. A new kind of data is a new name in `held` and no new version."""

    format: Literal["shopassist.user-export"]
    version: Literal[1]
    exported_at: datetime
    user_id: str
    is_guest: bool
    held: Annotated[
        dict[str, list[dict[str, Any]]],
        Field(
            description="Rows by what they are: `account` (the credit account), `holds` (credits set aside for work in "
            "progress), `transactions` (the ledger), `consents`, `consent_history` (every grant and withdrawal), "
            "`remembered_answers` (kept for 24 hours by Idempotency-Key), `remembered_adjustments` (what an "
            "administrator did to the account within 24 hours), `administrators_acts` (what they did and why), "
            "`merged_guests` and `merged_into` (guest sessions that became a user's). Instants are UTC, ISO 8601."
        ),
    ]
