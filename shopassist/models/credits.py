"""Credits: the account, its ledger, and what callers see of both."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel
from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from shopassist.models.columns import Timestamp, private_timestamp, timestamp

USER_ID_LENGTH = 255
"""Characters in a user id at the most; OpenID Connect Core 1.0, section 2, gives a subject as many."""
HASH_LENGTH = 64
KEY_LENGTH = 255


class TransactionType(StrEnum):
    """Why a ledger row was written."""

    ALLOCATE = "allocate"
    DEDUCT = "deduct"
    RESET = "reset"
    ADJUST = "adjust"
    OPENING = "opening"
    ERASE = "erase"


class UserCredits(SQLModel, table=True):
    """A credit account. Amounts are whole credits.

    `held_credits` are set aside for work in progress: with `available_credits` they are the sum of the ledger.
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
    is_guest: bool
    available_credits: int
    held_credits: int = Field(default=0, exclude=True, sa_column_kwargs={"server_default": text("0")})
    max_credits: int
    last_reset_timestamp: datetime = Field(sa_type=Timestamp)
    created_at: datetime = private_timestamp()
    updated_at: datetime = private_timestamp()


class CreditTransaction(SQLModel, table=True):
    """One ledger row. `amount` is signed: a deduction of 3 credits is -3.

    `balance_after` is the sum of the user's rows up to this one; `operation_id` names the operation that wrote it and
    `actor` the administrator who asked for it.
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
    timestamp: datetime = timestamp()
    description: str | None = Field(default=None, sa_type=Text)
    balance_after: int
    operation_id: UUID | None = Field(default=None, exclude=True)
    actor: str | None = Field(default=None, exclude=True, max_length=USER_ID_LENGTH)


class CreditHold(SQLModel, table=True):
    """Credits set aside for work in progress until it is settled, voided, or `expires_at` has passed.

    A user has one open hold at the most for a question (by its hash) and for an idempotency key.
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
    created_at: datetime = timestamp()
    expires_at: datetime = Field(sa_type=Timestamp)
    question_hash: str | None = Field(default=None, max_length=HASH_LENGTH)
    idempotency_key: str | None = Field(default=None, max_length=KEY_LENGTH)


class IdempotentAnswer(SQLModel, table=True):
    """What a caller was answered under a key, to be answered again until `expires_at`."""

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
    idempotency_key: str = Field(primary_key=True, max_length=KEY_LENGTH)
    request_hash: str = Field(max_length=HASH_LENGTH)
    response: dict[str, Any] = Field(sa_type=JSONB)
    expires_at: datetime = Field(sa_type=Timestamp)


class CreditStatus(BaseModel):
    """What an account may spend and when it refills. `next_reset_time` is null for guests, who never refill.

    It is no table and made for every request: pydantic's own class is made in a quarter of the time.
    """

    available_credits: int
    max_credits: int
    is_guest: bool
    can_reset: bool
    next_reset_time: datetime | None


class UserCreditStatus(CreditStatus):
    """A credit status and whose it is."""

    user_id: str
