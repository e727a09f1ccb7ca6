"""Tables and schemas of notices, consent records and consent events."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, StrictBool, StringConstraints, model_validator
from pydantic import Field as PydanticField
from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from shopassist.audit.models import REQUEST_ID_LENGTH
from shopassist.db.columns import Timestamp, private_timestamp_column, timestamp_column
from shopassist.errors import LOCALE_LENGTH, PURPOSE_LENGTH, NoticeReference
from shopassist.text import USER_ID_LENGTH, validate_text

TERMS = "terms"
MARKETING = "marketing"
"""The two purposes of the consent record; operators may publish notices for others."""

ROUTE_LENGTH = 128
SOURCE_LENGTH = 32
MAX_DECISIONS = 20
NOTICE_TEXT_LENGTH = 200_000
MAX_GRACE_HOURS = 24 * 366

LOCALE_PATTERN = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-[A-Za-z0-9]{5,8})*")


def canonicalize_locale(tag: str) -> str:
    """Return a language tag in canonical case, such as `hi`, `en-IN` or `zh-Hant-TW` (RFC 5646, section 2.1.1).

    Raises `ValueError` for other text.
    """
    if len(tag) > LOCALE_LENGTH or not LOCALE_PATTERN.fullmatch(tag):
        raise ValueError("must be a language tag such as en or hi-IN")
    language, *others = tag.split("-")
    change_case = {2: str.upper, 4: str.title}
    return "-".join([language.lower(), *(change_case.get(len(part), str.lower)(part) for part in others)])


Purpose = Annotated[
    str,
    StringConstraints(max_length=PURPOSE_LENGTH, pattern="^[a-z][a-z0-9_-]*$"),
    PydanticField(description="What the data is used for.", examples=[TERMS, MARKETING]),
]
Locale = Annotated[
    str, AfterValidator(canonicalize_locale), PydanticField(description="Language tag of the text.", examples=["en"])
]
NoticeText = Annotated[
    str, StringConstraints(min_length=1, max_length=NOTICE_TEXT_LENGTH), AfterValidator(validate_text)
]


def compute_sha256(text: str) -> str:
    """Return the SHA-256 of the UTF-8 text as 64 hex characters, as `sha256sum` prints it for a file of the text."""
    return hashlib.sha256(text.encode()).hexdigest()


class NoticeBase(NoticeReference):
    """Public fields of a notice except its text."""

    published_at: datetime = timestamp_column()
    binding_from: datetime = Field(sa_type=Timestamp)


class ConsentNotice(NoticeBase, table=True):
    """Published text of one version in one language; it never changes.

    From `binding_from` on, an agreement to an earlier version is no longer enough.
    """

    __tablename__ = "consent_notices"
    __table_args__ = (
        CheckConstraint("version > 0", name="ck_consent_notices_version"),
        CheckConstraint(
            "sha256 = encode(sha256(convert_to(\"text\", 'UTF8')), 'hex')", name="ck_consent_notices_sha256"
        ),
        UniqueConstraint("purpose", "version", "locale", name="uq_consent_notices_purpose_version_locale"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))  # type: ignore[assignment]
    text: str = Field(sa_type=Text)


class PublishedNotice(NoticeBase):
    """A notice without its text. `is_binding`: agreements to earlier versions are no longer enough."""

    is_binding: bool


def list_references(notices: Iterable[PublishedNotice]) -> list[dict[str, Any]]:
    """Return the references of notices as the body of an error has them."""
    return [notice.model_dump(include=set(NoticeReference.model_fields)) for notice in notices]


def get_current_notices(notices: Iterable[PublishedNotice]) -> dict[str, list[PublishedNotice]]:
    """Return the newest version of each purpose in all its languages, the first published first."""
    found: dict[str, list[PublishedNotice]] = {}
    for notice in notices:
        others = found.setdefault(notice.purpose, [])
        if others and others[0].version < notice.version:
            others.clear()
        others.append(notice)
    return found


class NoticePublication(SQLModel):
    """Text to publish. `version` defaults to the next one; the newest version's number adds a translation."""

    purpose: Purpose
    locale: Locale
    text: NoticeText
    version: Annotated[int, PydanticField(ge=1, le=1_000_000)] | None = None
    grace_hours: Annotated[
        Annotated[float, PydanticField(ge=0, le=MAX_GRACE_HOURS)] | None,
        PydanticField(
            description="How long those who agreed to the version before may put it off; the server's unless given."
        ),
    ] = None


class UserConsentBase(SQLModel):
    """Decisions of a consent record."""

    terms_accepted: bool = True
    marketing_consent: bool = False


class UserConsent(UserConsentBase, table=True):
    """Consent record of one registered user."""

    __tablename__ = "user_consents"

    user_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    timestamp: datetime = timestamp_column()
    updated_at: datetime = private_timestamp_column()


class UserConsentCreate(UserConsentBase):
    """Request to create a consent record."""


class UserConsentUpdate(SQLModel):
    """Change of a consent record; a field that is absent or null stays as it is."""

    marketing_consent: bool | None = None


class ConsentSource(StrEnum):
    """Source of a grant or withdrawal."""

    CONSENTS = "consents"
    """A decision by `/api/consents`; grants name the notice."""
    RECORD = "record"
    """A decision by `/api/consent`, which does not name a notice."""
    PRIVACY_SIGNAL = "privacy_signal"
    """The browser's Global Privacy Control signal."""
    EARLIER_RECORD = "earlier_record"
    """A consent record that is older than the history."""
    GUEST_MERGE = "guest_merge"
    """A decision of a guest who was merged into the user."""
    ADMINISTRATOR = "administrator"
    """An administrator, at the user's request."""


@dataclass(frozen=True, slots=True)
class ConsentSubject:
    """User or guest whose consent is meant. A guest is never the registered user of the same id."""

    user_id: str
    is_guest: bool


@dataclass(frozen=True, slots=True)
class ConsentProvenance:
    """Origin of a decision. `privacy_signal`: the request carried `Sec-GPC: 1`."""

    source: ConsentSource
    route: str | None = None
    request_id: str | None = None
    privacy_signal: bool = False


@dataclass(frozen=True, slots=True)
class LatestDecision:
    """Latest decision about a purpose, and the version of its notice; None where the notice is not known."""

    granted: bool
    version: int | None


class ConsentEventBase(SQLModel):
    """Public fields of a consent event."""

    purpose: str = Field(max_length=PURPOSE_LENGTH)
    granted: bool
    source: str = Field(max_length=SOURCE_LENGTH)
    route: str | None = Field(default=None, max_length=ROUTE_LENGTH)
    timestamp: datetime = timestamp_column()


class ConsentEvent(ConsentEventBase, table=True):
    """One grant or withdrawal of a subject for one purpose; it never changes.

    `notice_id` is the notice that was shown, null where the route did not name one.
    """

    __tablename__ = "consent_events"
    __table_args__ = (Index("ix_consent_events_user_id_is_guest_purpose_id", "user_id", "is_guest", "purpose", "id"),)

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    user_id: str = Field(max_length=USER_ID_LENGTH)
    is_guest: bool
    notice_id: int | None = Field(default=None, foreign_key="consent_notices.id", sa_type=BigInteger)
    request_id: str | None = Field(default=None, max_length=REQUEST_ID_LENGTH)


class ConsentDecision(SQLModel):
    """Yes or no to one purpose. A grant names the notice that was shown."""

    purpose: Purpose
    granted: Annotated[StrictBool, PydanticField(description="Always said, never assumed.")]
    notice_id: Annotated[
        int | None,
        PydanticField(
            ge=1, le=2**63 - 1, description="`id` of the text that was shown, from `/api/notices`; needed to grant."
        ),
    ] = None

    @model_validator(mode="after")
    def _require_notice_of_grant(self) -> Self:
        if self.granted and self.notice_id is None:
            raise ValueError("a grant must name the notice that was shown")
        return self


class ConsentDecisions(SQLModel):
    """Decisions of a subject, one for each purpose."""

    consents: Annotated[list[ConsentDecision], PydanticField(min_length=1, max_length=MAX_DECISIONS)]

    @model_validator(mode="after")
    def _require_distinct_purposes(self) -> Self:
        if len({decision.purpose for decision in self.consents}) < len(self.consents):
            raise ValueError("each purpose must be named once")
        return self


class ConsentState(SQLModel):
    """State of a purpose: granted, withdrawn, or, without a `timestamp`, never decided."""

    purpose: str
    granted: bool
    timestamp: datetime | None = None
    source: str | None = None
    notice: NoticeReference | None = None
    current_version: int | None = None


class ConsentHistoryEntry(ConsentEventBase):
    """One grant or withdrawal as its subject sees it; `notice` is the text that was shown, where it is known."""

    model_config = {"json_schema_serialization_defaults_required": True}

    id: int
    notice: NoticeReference | None
