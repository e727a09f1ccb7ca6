"""The history of consent: every grant and withdrawal, and the state that follows from it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field as Rule
from pydantic import StrictBool, model_validator
from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Index
from sqlmodel import Field, SQLModel

from shopassist.models.columns import timestamp
from shopassist.models.credits import USER_ID_LENGTH
from shopassist.models.notice import PURPOSE_LENGTH, NoticeReference, Purpose

ROUTE_LENGTH = 128
REQUEST_ID_LENGTH = 64
MOST_DECISIONS = 20


class ConsentSource(StrEnum):
    """How a grant or withdrawal came about."""

    CONSENTS = "consents"
    """The person said so by `/api/consents`, of a text that is named."""
    RECORD = "record"
    """The person said so by `/api/consent`, which does not tell what was shown."""
    PRIVACY_SIGNAL = "privacy_signal"
    """The person's browser said so: Global Privacy Control."""
    EARLIER_RECORD = "earlier_record"
    """A record that was there before the history was."""
    GUEST_MERGE = "guest_merge"
    """What a guest had said, who is a registered user now."""
    ADMINISTRATOR = "administrator"
    """An administrator at the person's request."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose consent it is. A guest never is the registered user of the same id."""

    user_id: str
    is_guest: bool


@dataclass(frozen=True, slots=True)
class Origin:
    """How a decision reached us. `privacy_signal`: the request carried `Sec-GPC: 1`."""

    source: ConsentSource
    route: str | None = None
    request_id: str | None = None
    privacy_signal: bool = False


@dataclass(frozen=True, slots=True)
class Agreement:
    """What somebody last said about a purpose, and about which version; None where that is not known."""

    granted: bool
    version: int | None


class ConsentEvent(SQLModel, table=True):
    """One grant or withdrawal by one person for one purpose; it never changes.

    `notice_id` is the text that was shown, null where a route did not say.
    """

    __tablename__ = "consent_events"
    __table_args__ = (Index("ix_consent_events_user_id_is_guest_purpose_id", "user_id", "is_guest", "purpose", "id"),)

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    user_id: str = Field(max_length=USER_ID_LENGTH)
    is_guest: bool
    purpose: str = Field(max_length=PURPOSE_LENGTH)
    granted: bool
    notice_id: int | None = Field(
        default=None,
        sa_column=Column(
            BigInteger, ForeignKey("consent_notices.id", name="fk_consent_events_notice_id_consent_notices")
        ),
    )
    source: str = Field(max_length=32)
    route: str | None = Field(default=None, max_length=ROUTE_LENGTH)
    request_id: str | None = Field(default=None, max_length=REQUEST_ID_LENGTH)
    timestamp: datetime = timestamp()


class ConsentDecision(SQLModel):
    """Yes or no to one purpose. Yes names the text that was shown."""

    purpose: Purpose
    granted: Annotated[StrictBool, Rule(description="Always said, never assumed.")]
    notice_id: Annotated[
        int | None,
        Rule(ge=1, le=2**63 - 1, description="`id` of the text that was shown, from `/api/notices`; needed to grant."),
    ] = None

    @model_validator(mode="after")
    def _names_what_was_shown(self) -> Self:
        if self.granted and self.notice_id is None:
            raise ValueError("a grant must name the notice that was shown")
        return self


class ConsentDecisions(SQLModel):
    """What a person says, each purpose for itself."""

    consents: Annotated[list[ConsentDecision], Rule(min_length=1, max_length=MOST_DECISIONS)]

    @model_validator(mode="after")
    def _once_for_each_purpose(self) -> Self:
        if len({decision.purpose for decision in self.consents}) < len(self.consents):
            raise ValueError("each purpose must be named once")
        return self


class ConsentState(SQLModel):
    """Where a purpose stands: granted, withdrawn, or, without a `timestamp`, never decided."""

    purpose: str
    granted: bool
    timestamp: datetime | None = None
    source: str | None = None
    notice: NoticeReference | None = None
    current_version: int | None = None


class ConsentHistoryEntry(SQLModel):
    """One grant or withdrawal, when and how it came, and the text that was shown where that is known."""

    id: int
    purpose: str
    granted: bool
    timestamp: datetime
    source: str
    route: str | None
    notice: NoticeReference | None
