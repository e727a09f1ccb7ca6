"""Merges of guests in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from shopassist.db.ports import Clock
from shopassist.db.postgres.erasure_statements import LOCK_SUBJECTS, MOMENT
from shopassist.db.postgres.holdings import move
from shopassist.db.postgres.repository import BaseRepository
from shopassist.db.privacy import SubjectHash
from shopassist.errors import AccountErasedError
from shopassist.models import Erasure, GuestMerge, UserCredits
from shopassist.models.holdings import Holding


class PostgresGuestMerges(BaseRepository):
    """Implements `GuestMerges`."""

    def __init__(self, session: AsyncSession, subjects: SubjectHash, clock: Clock | None = None) -> None:
        """`subjects` hashes user ids."""
        super().__init__(session, clock)
        self._subjects = subjects

    async def lock(self, guest_id: str, user_id: str) -> None:
        subjects = [self._subjects(guest_id), self._subjects(user_id)]
        await self.session.execute(LOCK_SUBJECTS, {"subjects": subjects})
        erasing = select(Erasure.id).where(col(Erasure.subject_hash).in_(subjects), col(Erasure.finished_at).is_(None))
        if (await self.session.execute(erasing)).first() is not None:
            raise AccountErasedError

    async def find(self, guest_id: str) -> GuestMerge | None:
        return await self.session.get(GuestMerge, guest_id)

    async def is_guest(self, guest_id: str) -> bool | None:
        account = await self.session.get(UserCredits, guest_id)
        return None if account is None else account.is_guest

    async def move(self, holdings: Sequence[Holding], guest_id: str, user_id: str) -> dict[str, int]:
        return {one.name: await move(self.session, one, guest_id, user_id) for one in holdings}

    async def record(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        now = (await self.session.execute(MOMENT, {"instant": self.clock.instant()})).scalar_one()
        merge = GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=now, moved=moved)
        self.session.add(merge)
        await self.session.flush()
        return merge
