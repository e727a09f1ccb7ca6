"""What the ledger's statements are asked for, and how their rows become accounts."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy.orm import class_mapper

from shopassist.db.resilience.policy import request_began
from shopassist.models import UserCredits
from shopassist.models.ledger import Settlement


@dataclass(frozen=True, slots=True)
class Take:
    """A request for credits, to hold or to spend; of 0 credits, a look at the account that resets what is due.

    `began` is when the caller came, by `time.monotonic()`.
    """

    user_id: str
    is_guest: bool
    amount: int
    operation_id: UUID
    is_hold: bool = False
    description: str | None = None
    question_hash: str | None = None
    idempotency_key: str | None = None
    network: str | None = None
    began: float = field(default_factory=request_began)


@dataclass(frozen=True, slots=True)
class Close:
    """The end of a hold: settled, or given back."""

    hold_id: UUID
    user_id: str
    settlement: Settlement | None = None


COLUMNS = tuple(column.key for column in class_mapper(UserCredits).column_attrs)
new_account = class_mapper(UserCredits).class_manager.new_instance


def account_of(row: Any) -> UserCredits:
    """The account in a row that has its columns, built as the ORM builds what it loads: without validation."""
    account: UserCredits = new_account()
    account.__dict__.update({column: row[column] for column in COLUMNS})
    return account
