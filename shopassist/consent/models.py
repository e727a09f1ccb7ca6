"""Tables and schemas of notices, consent records and consent events."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, StrictBool, StringConstraints, model_validator
from pydantic import Field as PydanticField
from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Identity, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from shopassist.audit.models import REQUEST_ID_LENGTH
from shopassist.db.columns import Timestamp, private_timestamp_column, timestamp_column
from shopassist.errors import NoticeReference
from shopassist.text import HASH_LENGTH, USER_ID_LENGTH, validate_text

TERMS = "terms"
MARKETING = "marketing"
"""The two purposes that the consent record of the first API knows; others are the operator's to name."""

PURPOSE_LENGTH = 64
LOCALE_LENGTH = 35
NOTICE_TEXT_LENGTH = 200_000
MAX_GRACE_HOURS = 24 * 366

LOCALE_PATTERN = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-[A-Za-z0-9]{5,8})*")


def canonical_locale(tag: str) -> str:
    """A language tag in its usual letters, as `hi`, `en-IN` or `zh-Hant-TW` (RFC 5646, section 2.1.1).

    Raises `ValueError` for what is no such tag.
    """
    if len(tag) > LOCALE_LENGTH or not LOCALE_PATTERN.fullmatch(tag):
        raise ValueError("must be a language tag such as en or hi-IN")
    language, *others = tag.split("-")
    usual = {2: str.upper, 4: str.title}
    return "-".join([language.lower(), *(usual.get(len(part), str.lower)(part) for part in others)])


Purpose = Annotated[
    str,
    StringConstraints(max_length=PURPOSE_LENGTH, pattern="^[a-z][a-z0-9_-]*$"),
    PydanticField(description="What the data is used for.", examples=[TERMS, MARKETING]),
]
Locale = Annotated[
    str, AfterValidator(canonical_locale), PydanticField(description="Language tag of the text.", examples=["en"])
]
NoticeText = Annotated[
    str, StringConstraints(min_length=1, max_length=NOTICE_TEXT_LENGTH), AfterValidator(validate_text)
]
NoticeVersion = Annotated[int, PydanticField(ge=1, le=1_000_000)]
GraceHours = Annotated[float, PydanticField(ge=0, le=MAX_GRACE_HOURS)]


def sha256_hex(text: str) -> str:
    """SHA-256 of the text in UTF-8, 64 hex characters: what `sha256sum` says of a file that holds just the text."""
    return hashlib.sha256(text.encode()).hexdigest()


class ConsentNotice(SQLModel, table=True):
    """One published text of one version in one language; it never changes.

    Whoever agreed to an earlier version must agree to this one from `binding_from` on.
    """

    __tablename__ = "consent_notices"
    __table_args__ = (
        CheckConstraint("version > 0", name="ck_consent_notices_version"),
        CheckConstraint(
            "sha256 = encode(sha256(convert_to(\"text\", 'UTF8')), 'hex')",
            name="ck_consent_notices_sha256",
        ),
        UniqueConstraint("purpose", "version", "locale", name="uq_consent_notices_purpose_version_locale"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    purpose: str = Field(max_length=PURPOSE_LENGTH)
    version: int
    locale: str = Field(max_length=LOCALE_LENGTH)
    sha256: str = Field(max_length=HASH_LENGTH)
    text: str = Field(sa_type=Text)
    published_at: datetime = timestamp_column()
    binding_from: datetime = Field(sa_type=Timestamp)


class PublishedNotice(NoticeReference):
    """A published text but for its words. `is_binding`: an earlier version does not do any more."""

    published_at: datetime
    binding_from: datetime
    is_binding: bool


class NoticePublication(SQLModel):
    """A text to publish. Without a version it is the next one; the newest version's number adds a translation."""

    purpose: Purpose
    locale: Locale
    text: NoticeText
    version: NoticeVersion | None = None
    grace_hours: Annotated[
        GraceHours | None,
        PydanticField(
            description="How long those who agreed to the version before may put it off; the server's unless given."
        ),
    ] = None


class UserConsentCreate(SQLModel):
    """What a user sends to agree to the terms."""

    terms_accepted: bool = True
    marketing_consent: bool = False


class UserConsentUpdate(SQLModel):
    """What may be changed later; a field that is absent or null stays as it is."""

    marketing_consent: bool | None = None


class UserConsent(SQLModel, table=True):
    """The consent record of one user."""

    __tablename__ = "user_consents"

    user_id: str = Field(primary_key=True, max_length=USER_ID_LENGTH)
    terms_accepted: bool = True
    marketing_consent: bool = False
    timestamp: datetime = timestamp_column()
    updated_at: datetime = private_timestamp_column()


ROUTE_LENGTH = 128

MAX_DECISIONS = 20


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
class ConsentSubject:
    """Whose consent it is. A guest never is the registered user of the same id."""

    user_id: str
    is_guest: bool


@dataclass(frozen=True, slots=True)
class ConsentProvenance:
    """How a decision reached us. `privacy_signal`: the request carried `Sec-GPC: 1`."""

    source: ConsentSource
    route: str | None = None
    request_id: str | None = None
    privacy_signal: bool = False


@dataclass(frozen=True, slots=True)
class LatestDecision:
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
    timestamp: datetime = timestamp_column()


class ConsentDecision(SQLModel):
    """Yes or no to one purpose. Yes names the text that was shown."""

    purpose: Purpose
    granted: Annotated[StrictBool, PydanticField(description="Always said, never assumed.")]
    notice_id: Annotated[
        int | None,
        PydanticField(
            ge=1, le=2**63 - 1, description="`id` of the text that was shown, from `/api/notices`; needed to grant."
        ),
    ] = None

    @model_validator(mode="after")
    def _names_what_was_shown(self) -> Self:
        if self.granted and self.notice_id is None:
            raise ValueError("a grant must name the notice that was shown")
        return self


class ConsentDecisions(SQLModel):
    """What a person says, each purpose for itself."""

    consents: Annotated[list[ConsentDecision], PydanticField(min_length=1, max_length=MAX_DECISIONS)]

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
