"""Storage ports of consent, and the counters of decisions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, Protocol

from shopassist.audit.models import AuditRepositories
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
        """Insert the record with the current time. Raises `ConsentExistsError` when the user has one."""

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None: ...

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        """Return records by user id, after `after_user_id` (the keyset cursor)."""


class ConsentHistory(Protocol):
    """Append-only history of grants and withdrawals."""

    async def lock(self, subject: ConsentSubject) -> None:
        """Lock the consent of `subject` against other writers until the unit of work ends."""

    async def get_latest_events(self, subject: ConsentSubject) -> dict[str, ConsentEvent]:
        """Return the newest event of each purpose."""

    async def insert_events(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        """Insert events in this order with the current time, and return the stored rows."""

    async def list_events(
        self, subject: ConsentSubject, limit: int, before_id: int | None = None
    ) -> list[ConsentEvent]:
        """Return events newest first, before the event `before_id` (the keyset cursor)."""


class NoticeRepository(Protocol):
    """Published notices; they never change."""

    async def lock(self) -> None:
        """Lock notices against other publishers until the unit of work ends."""

    async def insert_notice(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        """Insert a notice that is binding `grace_hours` from now, or from the time its version is binding.

        Raises `NoticeExistsError` when the version has a text in this language.
        """

    async def get_notice(self, notice_id: int) -> ConsentNotice | None: ...

    async def get_notices(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        """Return these notices by purpose."""

    async def list_published(self) -> list[PublishedNotice]:
        """Return all notices without their texts, by purpose, version and id."""


class ConsentLookup(Protocol):
    """Reads of consent while a question is answered, outside any unit of work."""

    async def list_published(self) -> list[PublishedNotice]:
        """Return all notices without their texts, by purpose, version and id."""

    async def get_latest_decision(self, subject: ConsentSubject, purpose: str) -> LatestDecision | None:
        """Return the latest decision of the subject about a purpose, or None."""


class ConsentCounters:
    """Decisions that this process recorded, by purpose and answer; all purposes of an operator are `other`."""

    def __init__(self) -> None:
        """Start at zero for every purpose and answer."""
        series = product((TERMS, MARKETING, "other"), ("granted", "withdrawn"))
        self.decisions = Counter[tuple[str, str]](dict.fromkeys(series, 0))

    def count_decisions(self, events: Iterable[ConsentEvent]) -> None:
        """Count decisions, once they are committed."""
        for event in events:
            purpose = event.purpose if event.purpose in {TERMS, MARKETING} else "other"
            self.decisions[purpose, "granted" if event.granted else "withdrawn"] += 1


class ConsentRepositories(AuditRepositories, Protocol):
    """Repositories of consent, and the audit that consent writes to, within a unit of work."""

    @property
    def consents(self) -> ConsentRepository: ...

    @property
    def consent_history(self) -> ConsentHistory: ...

    @property
    def notices(self) -> NoticeRepository: ...
