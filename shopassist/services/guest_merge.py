"""Merging: on first login what a guest agreed to and asked becomes the user's. Once; and no credits are added."""

from shopassist.db.ports import Repositories, UnitOfWork
from shopassist.errors import GuestMergedError, IntegrityError, NotFoundError
from shopassist.models import GuestMerge
from shopassist.models.guest_merge import GuestMerged
from shopassist.models.holdings import HELD

MOVED = tuple(one for one in HELD if one.moves)
UNKNOWN = "Nothing is known of this guest session."


class GuestMergeService:
    """Merges guests into registered users. Whoever has a guest's session id is the guest."""

    def __init__(self, unit_of_work: UnitOfWork) -> None:
        """All of a merge is one unit of work."""
        self._unit_of_work = unit_of_work

    async def merge(self, guest_id: str, user_id: str) -> GuestMerged:
        """Move what the guest has to `user_id`; doing so again changes nothing and gives the first outcome.

        Raises `NotFoundError` when no guest has that id, be it a registered user's or nobody's, `GuestMergedError`
        when the guest was merged into another account, and `AccountErasedError` while either is erased.
        """

        async def merged(work: Repositories) -> GuestMerge:
            await work.merges.lock(guest_id, user_id)
            earlier = await work.merges.find(guest_id)
            if earlier is not None:
                return earlier
            if guest_id == user_id or not await work.merges.is_guest(guest_id):
                raise NotFoundError(UNKNOWN)
            return await work.merges.record(guest_id, user_id, await work.merges.move(MOVED, guest_id, user_id))

        try:
            merge = await self._unit_of_work.run(merged, repeatable=True)
        except IntegrityError:
            raise GuestMergedError from None
        if merge.user_id != user_id:
            raise GuestMergedError
        return GuestMerged(merged_at=merge.merged_at, moved=merge.moved)
