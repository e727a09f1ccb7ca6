"""What services ask of storage to give account of: what was agreed to and shown, and what administrators did."""

from collections.abc import Sequence
from typing import Any, Protocol

from shopassist.models import AdminAct, ConsentEvent, ConsentNotice, UserConsent
from shopassist.models.consent_history import Agreement, Subject
from shopassist.models.notice import PublishedNotice


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

    async def lock(self, subject: Subject) -> None:
        """Let nobody else change what `subject` has agreed to until the unit of work ends."""

    async def state(self, subject: Subject) -> dict[str, ConsentEvent]:
        """The newest event of each purpose."""

    async def append(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        """Add events in their order, stamped by the deciding clock; those that were stored."""

    async def page(self, subject: Subject, limit: int, before_id: int | None = None) -> list[ConsentEvent]:
        """Newest first; with `before_id` those older than that event (the keyset cursor)."""


class NoticeRepository(Protocol):
    """The texts that people are shown. What is published stays as it is."""

    async def lock(self) -> None:
        """Let nobody else publish until the unit of work ends."""

    async def publish(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        """Store a text, binding those who agreed to an earlier version `grace_hours` from now.

        A translation binds from when its version does. Raises `NoticeExistsError` for a text in the same place.
        """

    async def get(self, notice_id: int) -> ConsentNotice | None: ...

    async def texts(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        """Those notices, by purpose."""

    async def all(self) -> list[PublishedNotice]:
        """All without their texts, by purpose, version and id."""


class ConsentLookup(Protocol):
    """What is asked about consent on the way of a question, outside any unit of work."""

    async def published(self) -> list[PublishedNotice]:
        """All notices without their texts, by purpose, version and id."""

    async def agreement(self, subject: Subject, purpose: str) -> Agreement | None:
        """What the subject last said about a purpose, or None."""


class AdminAudit(Protocol):
    """What administrators and operators did. It only grows."""

    async def record(self, act: AdminAct) -> None: ...

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        """Newest first, by or about somebody when that is given; with `before_id` those older than that act."""
