"""Merges: what a guest agreed to and asked becomes the registered user's who the guest turned out to be."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, SecretStr
from pydantic import Field as Rule
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from shopassist.models.columns import Timestamp
from shopassist.models.credits import USER_ID_LENGTH


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
        SecretStr, Rule(min_length=1, max_length=4096, description="What was sent as `X-Session-ID` until now.")
    ]


class GuestMerged(BaseModel):
    """What was moved, and when. Credits are not added."""

    merged_at: datetime
    moved: dict[str, int]
