"""An administrator's correction of an account, as it comes in and as it is answered."""

from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, StringConstraints, field_validator
from sqlmodel import SQLModel

from shopassist.models.text import storable

LARGEST_AMOUNT = 2**31 - 1
REASON_LENGTH = 500

Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_LENGTH), AfterValidator(storable)
]


class CreditAdjustment(SQLModel):
    """Credits to add, or, when negative, to take away; and why."""

    amount: Annotated[
        StrictInt,
        Field(ge=-LARGEST_AMOUNT, le=LARGEST_AMOUNT, description="Whole credits, not 0.", examples=[-5]),
    ]
    reason: Annotated[Reason, Field(description="Kept in the ledger.", examples=["Refund of a wrong answer"])]

    @field_validator("amount")
    @classmethod
    def _changes_something(cls, amount: int) -> int:
        if amount == 0:
            raise ValueError("must not be 0")
        return amount


class CreditAdjusted(SQLModel):
    """What was done, by whom, and the account after it."""

    user_id: str
    amount: int
    reason: str
    actor: str
    available_credits: int
    max_credits: int
