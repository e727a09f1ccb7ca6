"""The history of consent in memory."""

from collections.abc import Sequence

from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.db.memory.store import MemoryStore
from shopassist.models import ConsentEvent
from shopassist.models.consent_history import Agreement, Subject
from shopassist.models.notice import PublishedNotice


class MemoryConsentHistory(BaseRepository):
    """Implements `ConsentHistory`."""

    async def lock(self, subject: Subject) -> None:
        """Units of work come one at a time."""

    async def state(self, subject: Subject) -> dict[str, ConsentEvent]:
        return {purpose: copied(event) for purpose, event in newest(self.store, subject).items()}

    async def append(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        stored = []
        for event in events:
            key = self.store.next_id("consent_events")
            row = copied(event, id=key, timestamp=self.store.now())
            self.session.put(self.store.consent_events, key, row)
            stored.append(copied(row))
        return stored

    async def page(self, subject: Subject, limit: int, before_id: int | None = None) -> list[ConsentEvent]:
        events = reversed(events_of(self.store, subject))
        older = [event for event in events if before_id is None or (event.id or 0) < before_id]
        return [copied(event) for event in older[:limit]]


class MemoryConsentLookup:
    """Implements `ConsentLookup`."""

    def __init__(self, store: MemoryStore) -> None:
        """Looks into `store`."""
        self._store = store

    async def published(self) -> list[PublishedNotice]:
        return published(self._store)

    async def agreement(self, subject: Subject, purpose: str) -> Agreement | None:
        event = newest(self._store, subject).get(purpose)
        if event is None:
            return None
        notice = self._store.notices.get(event.notice_id or 0)
        return Agreement(event.granted, notice.version if notice else None)


def events_of(store: MemoryStore, subject: Subject) -> list[ConsentEvent]:
    """Oldest first."""
    events = sorted(store.consent_events.of(subject.user_id).items())
    return [event for _, event in events if event.is_guest == subject.is_guest]


def newest(store: MemoryStore, subject: Subject) -> dict[str, ConsentEvent]:
    """The newest event of each purpose."""
    return {event.purpose: event for event in events_of(store, subject)}


def published(store: MemoryStore) -> list[PublishedNotice]:
    """All notices without their texts, by purpose, version and id."""
    now = store.now()
    rows = sorted(store.notices.values(), key=lambda notice: (notice.purpose, notice.version, notice.id))
    return [
        PublishedNotice(**notice.model_dump(exclude={"text"}), is_binding=notice.binding_from <= now) for notice in rows
    ]
