"""Tables and schemas of erasures, exports and guest merges; builds the rows of an erasure."""

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


class GuestMerge(SQLModel, table=True):
    """The one merge of a guest. `moved` are numbers of rows by what they were; `user_id` is null when erased since."""

    __tablename__ = "guest_merges"

    guest_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    user_id: str | None = Field(max_length=USER_ID_LENGTH, index=True)
    merged_at: datetime = Field(sa_type=Timestamp)
    moved: dict[str, Any] = Field(sa_type=JSONB)


class GuestToMerge(BaseModel):
    """The guest's session. Whoever has it is the guest."""

    session_id: Annotated[
        SecretStr,
        PydanticField(min_length=1, max_length=4096, description="What was sent as `X-Session-ID` until now."),
    ]


class GuestMerged(BaseModel):
    """What was moved, and when. Credits are not added."""

    merged_at: datetime
    moved: dict[str, int]


class AskedBy(StrEnum):
    """Who asked for an erasure."""

    USER = "user"
    OPERATOR = "operator"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class ErasurePolicy:
    """How long what is needed of the erased stays."""

    credits: CreditPolicy
    list_lifetime: timedelta

    def forget_at(self, is_guest: bool, last_reset: datetime, now: datetime) -> datetime:
        """When the balance may be forgotten: with the period; a guest's, who has none, with the ledger's retention."""
        if is_guest:
            return now + timedelta(days=self.credits.retention_days)
        return last_reset + self.credits.reset_interval


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """Whom to erase. `is_guest` is None where only the account can tell."""

    user_id: str
    subject_hash: str
    is_guest: bool | None
    asked_by: AskedBy


@dataclass(frozen=True, slots=True)
class ErasureListEntry:
    """One line of the list of erasures: nothing in it is personal without the key."""

    id: UUID
    subject_hash: str
    erased_at: datetime


class ErasureReceipt(BaseModel):
    """Proof of an erasure; nothing in it is personal. `finished_at` is null while the work goes on by itself.

    `erased` and `pseudonymised` are numbers of rows.
    """

    receipt_id: UUID
    requested_at: datetime
    finished_at: datetime | None
    erased: dict[str, int]
    pseudonymised: dict[str, int]


def is_guest_erasure(request: ErasureRequest, account: UserCredits | None, last: Erasure | None) -> bool:
    """Whether a guest is to be erased, whose account and last erasure these are.

    Raises `SessionRefusedError` for a guest who names a registered account, be it half erased.
    """
    if request.is_guest is None:
        return account.is_guest if account else False
    found = account or (last if last and last.finished_at is None else None)
    if request.is_guest and found and not found.is_guest:
        raise SessionRefusedError
    return request.is_guest


def build_erasure(request: ErasureRequest, is_guest: bool, had_account: bool, now: datetime) -> Erasure:
    """An erasure that nothing was done for yet. No session id has a bar in it, so no guest has the pseudonym."""
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


def build_erased_balance(account: UserCredits, erasure: Erasure, policy: ErasurePolicy) -> ErasedBalance:
    """What an account has left, once its holds are given back."""
    last_reset = account.last_reset_timestamp
    return ErasedBalance(
        subject_hash=erasure.subject_hash,
        is_guest=account.is_guest,
        available_credits=account.available_credits + account.held_credits,
        last_reset_timestamp=last_reset,
        forget_at=policy.forget_at(account.is_guest, last_reset, erasure.requested_at),
    )


def build_closed_account(account: UserCredits, erasure: Erasure) -> UserCredits:
    """The account that the ledger rows of an erased one belong to: empty, and never refilled, as a guest's."""
    now = erasure.requested_at
    return UserCredits(
        user_id=erasure.pseudonym or "",
        is_guest=True,
        available_credits=0,
        held_credits=0,
        max_credits=account.max_credits,
        last_reset_timestamp=now,
        created_at=now,
        updated_at=now,
    )


def build_closing_entry(account: UserCredits, erasure: Erasure) -> CreditTransaction | None:
    """The ledger row that takes what an erased account had left, if it had anything."""
    balance = account.available_credits + account.held_credits
    if not balance:
        return None
    return CreditTransaction(
        user_id=erasure.pseudonym or "",
        transaction_type=TransactionType.ERASE.value,
        amount=-balance,
        timestamp=erasure.requested_at,
        description="Account erased",
        balance_after=0,
    )


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
        PydanticField(
            description="Rows by what they are: `account` (the credit account), `holds` (credits set aside for work in "
            "progress), `transactions` (the ledger), `consents`, `consent_history` (every grant and withdrawal), "
            "`remembered_answers` (kept for 24 hours by Idempotency-Key), `remembered_adjustments` (what an "
            "administrator did to the account within 24 hours), `administrators_acts` (what they did and why), "
            "`merged_guests` and `merged_into` (guest sessions that became a user's). Instants are UTC, ISO 8601."
        ),
    ]
