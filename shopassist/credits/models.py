"""Credit tables, policy, request and response models, and results of reconciliation."""

import datetime as dt
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID, uuid4

from pydantic import Field as PydanticField
from pydantic import StrictInt, field_validator
from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from shopassist.audit.models import Reason
from shopassist.db.columns import Timestamp, private_timestamp_column, timestamp_column
from shopassist.errors import AccountErasedError, SessionRefusedError
from shopassist.text import HASH_LENGTH, IDEMPOTENCY_KEY_LENGTH, USER_ID_LENGTH


class TransactionType(StrEnum):
    """Why a ledger row was written."""

    ALLOCATE = "allocate"
    DEDUCT = "deduct"
    RESET = "reset"
    ADJUST = "adjust"
    OPENING = "opening"
    ERASE = "erase"


class CreditBalance(SQLModel):
    """The public fields of an account, in whole credits."""

    is_guest: bool
    available_credits: int
    max_credits: int


class UserCredits(CreditBalance, table=True):
    """A credit account.

    `held_credits` are reserved for work in progress: with `available_credits` they equal the sum of the ledger.
    """

    __tablename__ = "user_credits"
    __table_args__ = (
        CheckConstraint("available_credits >= 0", name="ck_user_credits_available_credits"),
        CheckConstraint("held_credits >= 0", name="ck_user_credits_held_credits"),
        CheckConstraint("max_credits > 0", name="ck_user_credits_max_credits"),
        Index("ix_user_credits_reset_due", "last_reset_timestamp", postgresql_where=text("NOT is_guest")),
        {"postgresql_with": {"fillfactor": 70}},
    )

    user_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    held_credits: int = Field(default=0, exclude=True, sa_column_kwargs={"server_default": text("0")})
    last_reset_timestamp: datetime = Field(sa_type=Timestamp)
    created_at: datetime = private_timestamp_column()
    updated_at: datetime = private_timestamp_column()


class CreditTransaction(SQLModel, table=True):
    """One ledger row. `amount` is signed: a deduction of 3 credits is -3.

    `balance_after` is the sum of the user's rows up to this one. `operation_id` identifies the operation that wrote
    the row, and `actor` the administrator who requested it.
    """

    __tablename__ = "credit_transactions"
    __table_args__ = (
        CheckConstraint("amount <> 0", name="ck_credit_transactions_amount"),
        Index("ix_credit_transactions_user_id_id", "user_id", "id"),
        Index("ix_credit_transactions_timestamp", "timestamp", postgresql_using="brin"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    user_id: str = Field(max_length=USER_ID_LENGTH)
    transaction_type: str
    amount: int
    timestamp: datetime = timestamp_column()
    description: str | None = Field(default=None, sa_type=Text)
    balance_after: int
    operation_id: UUID | None = Field(default=None, exclude=True)
    actor: str | None = Field(default=None, exclude=True, max_length=USER_ID_LENGTH)


class CreditHold(SQLModel, table=True):
    """Credits reserved for work in progress until it is settled, voided, or `expires_at` has passed.

    A user has at most one open hold for a question (by its hash) and for an idempotency key.
    """

    __tablename__ = "credit_holds"
    __table_args__ = (
        CheckConstraint("amount > 0", name="ck_credit_holds_amount"),
        Index("ix_credit_holds_expires_at", "expires_at"),
        Index(
            "uq_credit_holds_user_id_question_hash",
            "user_id",
            "question_hash",
            unique=True,
            postgresql_where=text("question_hash IS NOT NULL"),
        ),
        Index(
            "uq_credit_holds_user_id_idempotency_key",
            "user_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )

    hold_id: UUID = Field(default_factory=uuid4, primary_key=True)
    user_id: str = Field(max_length=USER_ID_LENGTH)
    amount: int
    created_at: datetime = timestamp_column()
    expires_at: datetime = Field(sa_type=Timestamp)
    question_hash: str | None = Field(default=None, max_length=HASH_LENGTH)
    idempotency_key: str | None = Field(default=None, max_length=IDEMPOTENCY_KEY_LENGTH)


class IdempotentAnswer(SQLModel, table=True):
    """The response to a request with an idempotency key, returned again until `expires_at`."""

    __tablename__ = "idempotent_answers"
    __table_args__ = (
        Index("ix_idempotent_answers_expires_at", "expires_at"),
        Index(
            "ix_idempotent_answers_adjusted_user",
            text("(response ->> 'user_id')"),
            postgresql_where=text("(response ->> 'user_id') IS NOT NULL"),
        ),
    )

    user_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    idempotency_key: str = Field(primary_key=True, max_length=IDEMPOTENCY_KEY_LENGTH)
    request_hash: str = Field(max_length=HASH_LENGTH)
    response: dict[str, Any] = Field(sa_type=JSONB)
    expires_at: datetime = Field(sa_type=Timestamp)


class CreditStatus(CreditBalance):
    """What an account may spend and when it refills. `next_reset_time` is null for guests, who never refill."""

    can_reset: bool
    next_reset_time: datetime | None


class UserCreditStatus(CreditStatus):
    """A credit status and its user."""

    user_id: str


MAX_CREDITS = 2**31 - 1
"""Largest balance and adjustment that PostgreSQL's `integer` holds."""


class CreditAdjustment(SQLModel):
    """A request to add credits or, with a negative amount, to remove them."""

    amount: Annotated[
        StrictInt,
        PydanticField(ge=-MAX_CREDITS, le=MAX_CREDITS, description="Whole credits, not 0.", examples=[-5]),
    ]
    reason: Annotated[Reason, PydanticField(description="Kept in the ledger.", examples=["Refund of a wrong answer"])]

    @field_validator("amount")
    @classmethod
    def _reject_zero(cls, amount: int) -> int:
        if amount == 0:
            raise ValueError("must not be 0")
        return amount


class CreditAdjusted(SQLModel):
    """The adjustment that was made, and the account after it."""

    user_id: str
    amount: int
    reason: str
    actor: str
    available_credits: int
    max_credits: int


class GuestNetwork(SQLModel, table=True):
    """Number of new guest accounts of one client network on one day (UTC). `network` is a keyed hash of the address."""

    __tablename__ = "guest_networks"
    __table_args__ = (CheckConstraint("accounts >= 0", name="ck_guest_networks_accounts"),)

    day: dt.date = Field(primary_key=True)
    network: str = Field(primary_key=True, max_length=HASH_LENGTH)
    accounts: int


class GuestSession(UserCreditStatus):
    """The session of a new guest. `session_id` is the guest's secret and is sent back as `X-Session-ID`."""

    session_id: str


class DriftKind(StrEnum):
    """Which two records of an account disagree."""

    BALANCE = "available and held credits differ from the sum of the ledger"
    HELD = "held credits differ from the sum of the open holds"
    BALANCE_AFTER = "the newest row's balance differs from the sum of the ledger"
    NO_ACCOUNT = "ledger rows or holds without an account"


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement, in credits: the value according to the ledger or the holds, and the value found."""

    user_id: str
    kind: DriftKind
    expected: int
    found: int


def find_drifts(
    user_id: str, balance: int | None, held: int, ledger: int, last_balance: int | None, open_holds: int
) -> list[Drift]:
    """Return every disagreement between the stored amounts of one user's credits, read at the same instant.

    `balance` is the sum of available and held credits (None: no account), `ledger` the sum of the transactions,
    `last_balance` the balance after the newest transaction (None: no transaction), and `open_holds` the sum of the
    open holds.
    """
    if balance is None:
        return [Drift(user_id, DriftKind.NO_ACCOUNT, 0, ledger + open_holds)]
    pairs = [
        (DriftKind.BALANCE, ledger, balance),
        (DriftKind.HELD, open_holds, held),
        (DriftKind.BALANCE_AFTER, ledger, ledger if last_balance is None else last_balance),
    ]
    return [Drift(user_id, kind, expected, found) for kind, expected, found in pairs if expected != found]


@dataclass(frozen=True, slots=True)
class ReconciliationPage:
    """Result for one page of accounts: how many there were, and every drift among them.

    The next page begins after `last_user_id`; None after the last page.
    """

    accounts: int
    drifts: tuple[Drift, ...]
    last_user_id: str | None


@dataclass(frozen=True, slots=True)
class ReconciliationReport:
    """Result for all accounts."""

    accounts: int
    drifting_accounts: int
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class CreditPolicy:
    """Sizes of accounts, the interval between resets, and lifetimes of holds and idempotent responses."""

    max_guest_credits: int = 10
    max_registered_credits: int = 50
    reset_interval: timedelta = timedelta(hours=24)
    hold_lifetime: timedelta = timedelta(seconds=60)
    replay_lifetime: timedelta = timedelta(hours=24)
    guest_accounts_per_network: int = 1000
    retention_days: int = 90

    def max_credits(self, is_guest: bool) -> int:
        """Return the credits of a full account."""
        return self.max_guest_credits if is_guest else self.max_registered_credits


PSEUDONYM_LENGTH = 64


class Erasure(SQLModel, table=True):
    """One erasure of a user's data, finished or in progress.

    `user_id` and `pseudonym` are set until it is finished; afterwards nothing links them. `subject_hash` is the user id
    hashed with a key that is not in the database. `counts` are numbers of erased rows by kind.
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
    """Credits that an erased account had left, so that erasure does not refill them; deleted after `forget_at`."""

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
class ErasureHistory:
    """Last erasure of a subject that requests an account, and the credits that it had left, read at `now`."""

    now: datetime
    is_erasing: bool = False
    erased_at: datetime | None = None
    balance: ErasedBalance | None = None


def build_account(
    user_id: str, is_guest: bool, history: ErasureHistory, policy: CreditPolicy, started_at: float
) -> UserCredits:
    """Return a new account for a request received at `started_at`, by `time.monotonic()`.

    Raises `AccountErasedError` if the request was received before an erasure of the account or during one, and
    `SessionRefusedError` if a guest names an account that belonged to a registered user.
    """
    request_age = timedelta(seconds=time.monotonic() - started_at)
    if history.is_erasing or (history.erased_at is not None and history.erased_at > history.now - request_age):
        raise AccountErasedError
    max_credits = policy.max_credits(is_guest)
    available, last_reset = max_credits, history.now
    erased = history.balance
    if erased is not None and (is_guest or not erased.is_guest):
        if is_guest and not erased.is_guest:
            raise SessionRefusedError
        available, last_reset = erased.available_credits, erased.last_reset_timestamp
    return UserCredits(
        user_id=user_id,
        is_guest=is_guest,
        available_credits=available,
        held_credits=0,
        max_credits=max_credits,
        last_reset_timestamp=last_reset,
        created_at=history.now,
        updated_at=history.now,
    )
