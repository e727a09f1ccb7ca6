"""Merging: on first login what a guest agreed to and asked becomes the user's. Once; and no credits are added."""

from collections.abc import Mapping

from shopassist.db.ports import Repositories, UnitOfWork
from shopassist.errors import GuestMergedError, IntegrityError, NotFoundError
from shopassist.models import ConsentEvent, GuestMerge
from shopassist.models.consent_history import ConsentSource, Origin, Subject
from shopassist.models.guest_merge import GuestMerged
from shopassist.models.holdings import HELD
from shopassist.services.consent_changes import Wish, changed

ORIGIN = Origin(ConsentSource.GUEST_MERGE)
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
            is_guest = await work.merges.is_guest(guest_id)
            decided = await work.consent_history.state(Subject(guest_id, is_guest=True))
            if guest_id == user_id or is_guest is False or (is_guest is None and not decided):
                raise NotFoundError(UNKNOWN)
            moved = await work.merges.move(MOVED if is_guest else (), guest_id, user_id)
            moved["consents"] = await decide_as_guest(work, Subject(user_id, is_guest=False), decided)
            return await work.merges.record(guest_id, user_id, moved)

        try:
            merge = await self._unit_of_work.about(guest_id, user_id).run(merged, repeatable=True)
        except IntegrityError:
            raise GuestMergedError from None
        if merge.user_id != user_id:
            raise GuestMergedError
        return GuestMerged(merged_at=merge.merged_at, moved=merge.moved)


async def decide_as_guest(work: Repositories, user: Subject, decided: Mapping[str, ConsentEvent]) -> int:
    """Let what a guest decided count for the user, but where the user has decided already; how many purposes."""
    await work.consent_history.lock(user)
    own = await work.consent_history.state(user)
    wishes = [
        Wish(event.purpose, event.granted, event.notice_id) for event in decided.values() if event.purpose not in own
    ]
    await changed(work, user, wishes, ORIGIN)
    return len(wishes)
