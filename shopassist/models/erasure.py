"""Erasure: what was asked for, how far it is, and what stays known of somebody who was erased."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from shopassist.errors import AccountErasedError, SessionRefusedError
from shopassist.models.columns import Timestamp
from shopassist.models.credits import HASH_LENGTH, USER_ID_LENGTH
from shopassist.models.ledger import CreditPolicy

PSEUDONYM_LENGTH = 64


class AskedBy(StrEnum):
    """Who asked for an erasure."""

    USER = "user"
    OPERATOR = "operator"
    REPLAY = "replay"


class Erasure(SQLModel, table=True):
    """One erasure: the list of them, and the work that is under way.

    `user_id` and `pseudonym` are there until it is finished, and nothing joins them afterwards. `subject_hash` is the
    user id under a key that the database has not. `counts` are rows by what they were.
    """

    __tablename__ = "erasures"
    __table_args__ = (
        CheckConstraint(
            "(finished_at IS NULL) = (user_id IS NOT NULL) AND (user_id IS NULL) = (pseudonym IS NULL)",
            name="ck_erasures_finished",
        ),
        Index("ix_erasures_subject_hash", "subject_hash"),
        Index("ix_erasures_requested_at_id", "requested_at", "id"),
        Index("ix_erasures_unfinished", "requested_at", postgresql_where=text("finished_at IS NULL")),
    )

    id: UUID = Field(default_factory=uuid4, primary_key=True)
    subject_hash: str = Field(max_length=HASH_LENGTH)
    is_guest: bool
    had_account: bool
    asked_by: str = Field(max_length=16)
    requested_at: datetime = Field(sa_type=Timestamp)
    finished_at: datetime | None = Field(default=None, sa_type=Timestamp)
    user_id: str | None = Field(default=None, max_length=USER_ID_LENGTH)
    pseudonym: str | None = Field(default=None, max_length=PSEUDONYM_LENGTH)
    counts: dict[str, Any] = Field(sa_type=JSONB)


class ErasedBalance(SQLModel, table=True):
    """What an erased account had left, so that coming back does not refill it; kept until `forget_at`."""

    __tablename__ = "erased_balances"
    __table_args__ = (
        CheckConstraint("available_credits >= 0", name="ck_erased_balances_available_credits"),
        Index("ix_erased_balances_forget_at", "forget_at"),
    )

    subject_hash: str = Field(primary_key=True, max_length=HASH_LENGTH)
    is_guest: bool
    available_credits: int
    last_reset_timestamp: datetime = Field(sa_type=Timestamp)
    forget_at: datetime = Field(sa_type=Timestamp)


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
class Listed:
    """One line of the list of erasures: nothing in it is personal without the key."""

    id: UUID
    subject_hash: str
    erased_at: datetime


@dataclass(frozen=True, slots=True)
class Past:
    """What is known, `now`, of a subject that wants an account: when it was last erased, and what it had left."""

    now: datetime
    is_erasing: bool = False
    erased_at: datetime | None = None
    balance: ErasedBalance | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """How an account begins: its credits, and since when its period runs (None: since now)."""

    available_credits: int
    max_credits: int
    last_reset: datetime | None = None


def opening(is_guest: bool, past: Past, policy: CreditPolicy, asked_since: timedelta) -> Opening:
    """The beginning of an account for a request that came `asked_since` ago.

    Raises `AccountErasedError` for one that came before the account was erased, or while it is, and
    `SessionRefusedError` for a guest who names an account that was a registered user's.
    """
    if past.is_erasing or (past.erased_at is not None and past.erased_at > past.now - asked_since):
        raise AccountErasedError
    most = policy.max_credits(is_guest)
    balance = past.balance
    if balance is None or (balance.is_guest and not is_guest):
        return Opening(most, most)
    if is_guest and not balance.is_guest:
        raise SessionRefusedError
    return Opening(balance.available_credits, most, balance.last_reset_timestamp)


class ErasureReceipt(BaseModel):
    """Proof of an erasure; nothing in it is personal. `finished_at` is null while the work goes on by itself.

    `erased` and `pseudonymised` are numbers of rows.
    """

    receipt_id: UUID
    requested_at: datetime
    finished_at: datetime | None
    erased: dict[str, int]
    pseudonymised: dict[str, int]
