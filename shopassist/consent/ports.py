"""Storage ports of consent, and counters of privacy events."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

from shopassist.audit.ports import AuditRepositories
from shopassist.consent.models import (
    MARKETING,
    TERMS,
    ConsentEvent,
    ConsentNotice,
    ConsentSubject,
    LatestDecision,
    PublishedNotice,
    UserConsent,
)


class ConsentRepository(Protocol):
    """Consent records."""

    async def get_consent(self, user_id: str) -> UserConsent | None: ...

    async def create_consent(self, consent: UserConsent) -> UserConsent:
        """The record, stamped with the deciding instant. Raises `ConsentExistsError` when the user has one."""

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None: ...

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        """By user id; with `after_user_id` those behind it (the keyset cursor)."""


class ConsentHistory(Protocol):
    """Every grant and withdrawal. It only grows."""

    async def lock(self, subject: ConsentSubject) -> None:
        """Let nobody else change what `subject` has agreed to until the unit of work ends."""

    async def get_latest_events(self, subject: ConsentSubject) -> dict[str, ConsentEvent]:
        """The newest event of each purpose."""

    async def insert_events(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        """Add events in their order, stamped by the deciding clock; those that were stored."""

    async def list_events(
        self, subject: ConsentSubject, limit: int, before_id: int | None = None
    ) -> list[ConsentEvent]:
        """Newest first; with `before_id` those older than that event (the keyset cursor)."""


class NoticeRepository(Protocol):
    """The texts that people are shown. What is published stays as it is."""

    async def lock(self) -> None:
        """Let nobody else publish until the unit of work ends."""

    async def insert_notice(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        """Store a text, binding those who agreed to an earlier version `grace_hours` from now.

        A translation binds from when its version does. Raises `NoticeExistsError` for a text in the same place.
        """

    async def get_notice(self, notice_id: int) -> ConsentNotice | None: ...

    async def get_notices(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        """Those notices, by purpose."""

    async def list_published(self) -> list[PublishedNotice]:
        """All without their texts, by purpose, version and id."""


class ConsentLookup(Protocol):
    """What is asked about consent on the way of a question, outside any unit of work."""

    async def list_published(self) -> list[PublishedNotice]:
        """All notices without their texts, by purpose, version and id."""

    async def get_latest_decision(self, subject: ConsentSubject, purpose: str) -> LatestDecision | None:
        """What the subject last said about a purpose, or None."""


OTHER_PURPOSE = "other"
"""Purposes that an operator has named: one value, so that nobody but us decides how many series there are."""


DECISION_LABELS = ("granted", "withdrawn")


@dataclass(slots=True)
class ConsentCounters:
    """Decisions that this process recorded, by purpose and answer."""

    decisions: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter(dict.fromkeys(product((TERMS, MARKETING, OTHER_PURPOSE), DECISION_LABELS), 0))
    )

    def count_decisions(self, events: Iterable[ConsentEvent]) -> None:
        """Count decisions, once they are committed."""
        for event in events:
            purpose = event.purpose if event.purpose in {TERMS, MARKETING} else OTHER_PURPOSE
            self.decisions[purpose, DECISION_LABELS[not event.granted]] += 1


class ConsentRepositories(AuditRepositories, Protocol):
    """Repositories of consent, and the audit that consent writes to, within a unit of work."""

    @property
    def consents(self) -> ConsentRepository: ...

    @property
    def consent_history(self) -> ConsentHistory: ...

    @property
    def notices(self) -> NoticeRepository: ...
