"""Tables and schemas of erasures, exports and guest merges, and the rules of an erasure that storages share."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, SecretStr
from pydantic import Field as PydanticField
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from shopassist.credits.models import (
    CreditPolicy,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    TransactionType,
    UserCredits,
)
from shopassist.db.columns import Timestamp
from shopassist.errors import SessionRefusedError
from shopassist.text import USER_ID_LENGTH


class GuestMerged(SQLModel):
    """Time of a merge and the number of moved rows by name. Credits are not added."""

    merged_at: datetime = Field(sa_type=Timestamp)
    moved: dict[str, int] = Field(sa_type=JSONB)


class GuestMerge(GuestMerged, table=True):
    """The only merge of a guest; `user_id` is null once the user was erased."""

    __tablename__ = "guest_merges"

    guest_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    user_id: str | None = Field(max_length=USER_ID_LENGTH, index=True)


class GuestToMerge(BaseModel):
    """Session of the guest to merge; its id alone proves that the caller is the guest."""

    session_id: Annotated[
        SecretStr,
        PydanticField(min_length=1, max_length=4096, description="What was sent as `X-Session-ID` until now."),
    ]


class AskedBy(StrEnum):
    """Who asked for an erasure."""

    USER = "user"
    OPERATOR = "operator"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class ErasurePolicy:
    """Retention of what is kept of erased accounts."""

    credits: CreditPolicy
    list_lifetime: timedelta


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """User to erase. With `is_guest=None` the account decides whether it is a guest."""

    user_id: str
    subject_hash: str
    is_guest: bool | None
    asked_by: AskedBy


@dataclass(frozen=True, slots=True)
class ErasureListEntry:
    """Entry of the list of erasures; without the key nothing in it is personal data."""

    id: UUID
    subject_hash: str
    erased_at: datetime


class ErasureReceipt(BaseModel):
    """Proof of an erasure, without personal data. `finished_at` is null while a job still erases rows.

    `erased` and `pseudonymised` are numbers of rows.
    """

    receipt_id: UUID
    requested_at: datetime
    finished_at: datetime | None
    erased: dict[str, int]
    pseudonymised: dict[str, int]


def decide_is_guest(is_guest: bool | None, known: UserCredits | Erasure | None) -> bool:
    """Return whether a guest is meant; with `is_guest=None` the account or unfinished erasure of the id decides.

    Raises `SessionRefusedError` for a guest who names a registered account, even a partly erased one.
    """
    if is_guest is None:
        return known.is_guest if known else False
    if is_guest and known and not known.is_guest:
        raise SessionRefusedError
    return is_guest


def build_erasure(request: ErasureRequest, is_guest: bool, had_account: bool, now: datetime) -> Erasure:
    """Build an erasure that has not begun. No session id contains a bar, so no guest has the pseudonym as an id."""
    return Erasure(
        subject_hash=request.subject_hash,
        is_guest=is_guest,
        had_account=had_account,
        asked_by=request.asked_by.value,
        requested_at=now,
        user_id=request.user_id,
        pseudonym=f"erased|{uuid4().hex}",
        counts={},
    )


def close_account(
    account: UserCredits, erasure: Erasure, policy: ErasurePolicy
) -> tuple[ErasedBalance, UserCredits, CreditTransaction | None]:
    """Build the rows that replace an account whose holds are released.

    They are the kept balance, an empty account under the pseudonym to which the ledger rows belong, and the ledger row
    that empties it. As a guest's, the empty account is never refilled.
    """
    now, last_reset = erasure.requested_at, account.last_reset_timestamp
    balance = account.available_credits + account.held_credits
    # A registered user's balance counts until the period is over. A guest has no period.
    period_end = last_reset + policy.credits.reset_interval
    guest_expiry = now + timedelta(days=policy.credits.retention_days)
    kept = ErasedBalance(
        subject_hash=erasure.subject_hash,
        is_guest=account.is_guest,
        available_credits=balance,
        last_reset_timestamp=last_reset,
        forget_at=guest_expiry if account.is_guest else period_end,
    )
    closed = UserCredits(
        user_id=erasure.pseudonym or "",
        is_guest=True,
        available_credits=0,
        held_credits=0,
        max_credits=account.max_credits,
        last_reset_timestamp=now,
        created_at=now,
        updated_at=now,
    )
    closing_entry = CreditTransaction(
        user_id=erasure.pseudonym or "",
        transaction_type=TransactionType.ERASE.value,
        amount=-balance,
        timestamp=now,
        description="Account erased",
        balance_after=0,
    )
    return kept, closed, closing_entry if balance else None


def record_progress(erasure: Erasure, erased: Mapping[str, int], finished_at: datetime | None) -> None:
    """Add numbers of erased rows to an erasure; with `finished_at` finish it and drop the user id."""
    new_counts = {name: erasure.counts.get(name, 0) + count for name, count in erased.items() if count}
    erasure.counts = erasure.counts | new_counts
    if finished_at is not None:
        erasure.finished_at = finished_at
        erasure.user_id = erasure.pseudonym = None


class UserExport(BaseModel):
    """All data of one user. A new kind of data adds a name to `held` and does not change the version."""

    format: Literal["shopassist.user-export"]
    version: Literal[1]
    exported_at: datetime
    user_id: str
    is_guest: bool
    held: Annotated[
        dict[str, list[dict[str, Any]]],
        PydanticField(
            description="Rows by what they are: `account` (the credit account), `holds` (credits set aside for work in "
            "progress), `transactions` (the ledger), `consents`, `consent_history` (every grant and withdrawal), "
            "`remembered_answers` (kept for 24 hours by Idempotency-Key), `remembered_adjustments` (what an "
            "administrator did to the account within 24 hours), `administrators_acts` (what they did and why), "
            "`merged_guests` and `merged_into` (guest sessions that became a user's). Instants are UTC, ISO 8601."
        ),
    ]
