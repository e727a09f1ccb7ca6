"""Notices: the texts that people are shown when they are asked to agree."""

import hashlib
import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, StringConstraints
from pydantic import Field as Rule
from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from shopassist.models.columns import Timestamp, timestamp
from shopassist.models.credits import HASH_LENGTH
from shopassist.models.text import storable

TERMS = "terms"
MARKETING = "marketing"
"""The two purposes that the consent record of the first API knows; others are the operator's to name."""

PURPOSE_LENGTH = 64
LOCALE_LENGTH = 35
TEXT_LENGTH = 200_000
MOST_GRACE_HOURS = 24 * 366

LOCALE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?(-[A-Za-z0-9]{5,8})*")


def canonical_locale(tag: str) -> str:
    """A language tag in its usual letters, as `hi`, `en-IN` or `zh-Hant-TW` (RFC 5646, section 2.1.1).

    Raises `ValueError` for what is no such tag.
    """
    if len(tag) > LOCALE_LENGTH or not LOCALE.fullmatch(tag):
        raise ValueError("must be a language tag such as en or hi-IN")
    language, *others = tag.split("-")
    usual = {2: str.upper, 4: str.title}
    return "-".join([language.lower(), *(usual.get(len(part), str.lower)(part) for part in others)])


Purpose = Annotated[
    str,
    StringConstraints(max_length=PURPOSE_LENGTH, pattern="^[a-z][a-z0-9_-]*$"),
    Rule(description="What the data is used for.", examples=[TERMS, MARKETING]),
]
Locale = Annotated[
    str, AfterValidator(canonical_locale), Rule(description="Language tag of the text.", examples=["en"])
]
NoticeText = Annotated[str, StringConstraints(min_length=1, max_length=TEXT_LENGTH), AfterValidator(storable)]
Version = Annotated[int, Rule(ge=1, le=1_000_000)]
GraceHours = Annotated[float, Rule(ge=0, le=MOST_GRACE_HOURS)]


def sha256_of(text: str) -> str:
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
    published_at: datetime = timestamp()
    binding_from: datetime = Field(sa_type=Timestamp)


class NoticeReference(SQLModel):
    """Which text: enough to find it and to prove that it is the one."""

    id: int
    purpose: str
    version: int
    locale: str
    sha256: str


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
    version: Version | None = None
    grace_hours: Annotated[
        GraceHours | None,
        Rule(description="How long those who agreed to the version before may put it off; the server's unless given."),
    ] = None
