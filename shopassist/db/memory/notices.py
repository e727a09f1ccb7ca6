"""Notices in memory."""

from collections.abc import Sequence
from datetime import timedelta

from shopassist.db.memory.consent_history import published
from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.errors import NoticeExistsError
from shopassist.models import ConsentNotice
from shopassist.models.notice import PublishedNotice


class MemoryNoticeRepository(BaseRepository):
    """Implements `NoticeRepository`."""

    async def lock(self) -> None:
        """Units of work come one at a time."""

    async def publish(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        same = [
            other
            for other in self.store.notices.values()
            if (other.purpose, other.version) == (notice.purpose, notice.version)
        ]
        if notice.locale in {other.locale for other in same}:
            raise NoticeExistsError
        now, key = self.store.now(), self.store.next_id("consent_notices")
        binding_from = min((other.binding_from for other in same), default=now + timedelta(hours=grace_hours))
        row = copied(notice, id=key, published_at=now, binding_from=binding_from)
        self.session.put(self.store.notices, key, row)
        return copied(row)

    async def get(self, notice_id: int) -> ConsentNotice | None:
        notice = self.store.notices.get(notice_id)
        return notice and copied(notice)

    async def texts(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        rows = [self.store.notices[key] for key in notice_ids if key in self.store.notices]
        return [copied(row) for row in sorted(rows, key=lambda notice: (notice.purpose, notice.id))]

    async def all(self) -> list[PublishedNotice]:
        return published(self.store)
