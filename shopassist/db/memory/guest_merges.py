"""Merges of guests in memory."""

from collections.abc import Sequence

from shopassist.db.memory.erasures import last_of
from shopassist.db.memory.holdings import move
from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.db.memory.store import MemorySession
from shopassist.db.privacy import SubjectHash
from shopassist.errors import AccountErasedError, IntegrityError
from shopassist.models import GuestMerge
from shopassist.models.holdings import Holding


class MemoryGuestMerges(BaseRepository):
    """Implements `GuestMerges`; units of work are one at a time."""

    def __init__(self, session: MemorySession, subjects: SubjectHash) -> None:
        """`subjects` hashes user ids."""
        super().__init__(session)
        self._subjects = subjects

    async def lock(self, guest_id: str, user_id: str) -> None:
        for one in (guest_id, user_id):
            last = last_of(self.store, self._subjects(one))
            if last is not None and last.finished_at is None:
                raise AccountErasedError

    async def find(self, guest_id: str) -> GuestMerge | None:
        merge = self.store.merges.get(guest_id)
        return merge and copied(merge)

    async def is_guest(self, guest_id: str) -> bool | None:
        account = self.store.accounts.get(guest_id)
        return None if account is None else account.is_guest

    async def move(self, holdings: Sequence[Holding], guest_id: str, user_id: str) -> dict[str, int]:
        return {one.name: move(self.session, one, guest_id, user_id) for one in holdings}

    async def record(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        if guest_id in self.store.merges:
            raise IntegrityError
        merge = GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=self.store.now(), moved=moved)
        self.session.put(self.store.merges, guest_id, copied(merge))
        return merge
