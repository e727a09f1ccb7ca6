"""Consent records, consent events and notices in memory."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from shopassist.consent.models import (
    ConsentEvent,
    ConsentNotice,
    ConsentSubject,
    LatestDecision,
    PublishedNotice,
    UserConsent,
)
from shopassist.db.memory import MemoryRepository, MemoryStore, copy_row
from shopassist.errors import ConsentExistsError, NoticeExistsError


class MemoryConsentRepository(MemoryRepository):
    """Implements `ConsentRepository`."""

    async def get_consent(self, user_id: str) -> UserConsent | None:
        consent = self.store.table(UserConsent).get(user_id)
        return consent and copy_row(consent)

    async def create_consent(self, consent: UserConsent) -> UserConsent:
        if consent.user_id in self.store.table(UserConsent):
            raise ConsentExistsError
        now = self.store.now()
        created = copy_row(consent, timestamp=now, updated_at=now)
        self.session.put(self.store.table(UserConsent), consent.user_id, created)
        return copy_row(created)

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None:
        consent = self.store.table(UserConsent).get(user_id)
        if consent is None:
            return None
        changed = copy_row(consent, **updates, updated_at=self.store.now())
        self.session.put(self.store.table(UserConsent), user_id, changed)
        return copy_row(changed)

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        keys = sorted(key for key in self.store.table(UserConsent) if after_user_id is None or key > after_user_id)
        return [copy_row(self.store.table(UserConsent)[key]) for key in keys[:limit]]


def get_events(store: MemoryStore, subject: ConsentSubject) -> list[ConsentEvent]:
    """Return the events of a subject, oldest first."""
    events = sorted(store.user_rows(ConsentEvent, subject.user_id).items())
    return [event for _, event in events if event.is_guest == subject.is_guest]


class MemoryConsentHistory(MemoryRepository):
    """Implements `ConsentHistory`."""

    async def lock(self, subject: ConsentSubject) -> None:
        """Do nothing: units of work run one at a time."""

    async def get_latest_events(self, subject: ConsentSubject) -> dict[str, ConsentEvent]:
        return {event.purpose: copy_row(event) for event in get_events(self.store, subject)}

    async def insert_events(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        stored = []
        for event in events:
            key = self.store.next_id(ConsentEvent)
            row = copy_row(event, id=key, timestamp=self.store.now())
            self.session.put(self.store.table(ConsentEvent), key, row)
            stored.append(copy_row(row))
        return stored

    async def list_events(
        self, subject: ConsentSubject, limit: int, before_id: int | None = None
    ) -> list[ConsentEvent]:
        events = reversed(get_events(self.store, subject))
        older = [event for event in events if before_id is None or (event.id or 0) < before_id]
        return [copy_row(event) for event in older[:limit]]


class MemoryConsentLookup:
    """Implements `ConsentLookup`."""

    def __init__(self, store: MemoryStore) -> None:
        """Read `store`."""
        self._store = store

    async def list_published(self) -> list[PublishedNotice]:
        return list_published_notices(self._store)

    async def get_latest_decision(self, subject: ConsentSubject, purpose: str) -> LatestDecision | None:
        events = [event for event in get_events(self._store, subject) if event.purpose == purpose]
        if not events:
            return None
        notice = self._store.table(ConsentNotice).get(events[-1].notice_id or 0)
        return LatestDecision(events[-1].granted, notice.version if notice else None)


def list_published_notices(store: MemoryStore) -> list[PublishedNotice]:
    """Return all notices without their texts, by purpose, version and id."""
    now = store.now()
    rows = sorted(store.table(ConsentNotice).values(), key=lambda notice: (notice.purpose, notice.version, notice.id))
    return [
        PublishedNotice(**notice.model_dump(exclude={"text"}), is_binding=notice.binding_from <= now) for notice in rows
    ]


class MemoryNoticeRepository(MemoryRepository):
    """Implements `NoticeRepository`."""

    async def lock(self) -> None:
        """Do nothing: units of work run one at a time."""

    async def insert_notice(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        same = [
            other
            for other in self.store.table(ConsentNotice).values()
            if (other.purpose, other.version) == (notice.purpose, notice.version)
        ]
        if notice.locale in {other.locale for other in same}:
            raise NoticeExistsError
        now, key = self.store.now(), self.store.next_id(ConsentNotice)
        binding_from = min((other.binding_from for other in same), default=now + timedelta(hours=grace_hours))
        row = copy_row(notice, id=key, published_at=now, binding_from=binding_from)
        self.session.put(self.store.table(ConsentNotice), key, row)
        return copy_row(row)

    async def get_notice(self, notice_id: int) -> ConsentNotice | None:
        notice = self.store.table(ConsentNotice).get(notice_id)
        return notice and copy_row(notice)

    async def get_notices(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        rows = [row for key, row in self.store.table(ConsentNotice).items() if key in notice_ids]
        return [copy_row(row) for row in sorted(rows, key=lambda notice: (notice.purpose, notice.id))]

    async def list_published(self) -> list[PublishedNotice]:
        return list_published_notices(self.store)
