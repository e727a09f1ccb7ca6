"""Merge a guest into a registered user, once; credits are not added."""

from collections.abc import Mapping

from shopassist.consent.models import ConsentEvent, ConsentProvenance, ConsentSource, ConsentSubject
from shopassist.consent.service import ConsentChoice, apply_choices, lock_latest_events
from shopassist.db.ports import UnitOfWork
from shopassist.errors import GuestMergedError, IntegrityError, NotFoundError
from shopassist.privacy.models import GuestMerge, GuestMerged
from shopassist.privacy.personal_data import PERSONAL_DATA_TABLES
from shopassist.privacy.ports import PrivacyRepositories

MERGE_PROVENANCE = ConsentProvenance(ConsentSource.GUEST_MERGE)
MOVED_TABLES = tuple(one for one in PERSONAL_DATA_TABLES if one.moves_on_merge)
UNKNOWN_GUEST = "Nothing is known of this guest session."


class GuestMergeService:
    """Merges guests into registered users. Whoever has a guest's session id is the guest."""

    def __init__(self, unit_of_work: UnitOfWork[PrivacyRepositories]) -> None:
        """All of a merge is one unit of work."""
        self._unit_of_work = unit_of_work

    async def merge(self, guest_id: str, user_id: str) -> GuestMerged:
        """Move what the guest has to `user_id`; doing so again changes nothing and gives the first outcome.

        Raises `NotFoundError` when no guest has that id, be it a registered user's or nobody's, `GuestMergedError`
        when the guest was merged into another account, and `AccountErasedError` while either is erased.
        """

        async def merged(work: PrivacyRepositories) -> GuestMerge:
            await work.guest_merges.lock(guest_id, user_id)
            earlier = await work.guest_merges.find_merge(guest_id)
            if earlier is not None:
                return earlier
            is_guest = await work.guest_merges.is_guest(guest_id)
            decided = await work.consent_history.get_latest_events(ConsentSubject(guest_id, is_guest=True))
            if guest_id == user_id or is_guest is False or (is_guest is None and not decided):
                raise NotFoundError(UNKNOWN_GUEST)
            moved = await work.guest_merges.move_rows(MOVED_TABLES if is_guest else (), guest_id, user_id)
            moved["consents"] = await copy_guest_decisions(work, ConsentSubject(user_id, is_guest=False), decided)
            return await work.guest_merges.insert_merge(guest_id, user_id, moved)

        try:
            merge = await self._unit_of_work.run(merged, repeatable=True)
        except IntegrityError:
            raise GuestMergedError from None
        if merge.user_id != user_id:
            raise GuestMergedError
        return GuestMerged(merged_at=merge.merged_at, moved=merge.moved)


async def copy_guest_decisions(
    work: PrivacyRepositories, user: ConsentSubject, decided: Mapping[str, ConsentEvent]
) -> int:
    """Copy a guest's decisions to the user except for purposes the user decided; return how many were copied."""
    latest = await lock_latest_events(work, user)
    choices = [
        ConsentChoice(event.purpose, event.granted, event.notice_id)
        for event in decided.values()
        if event.purpose not in latest
    ]
    await apply_choices(work, user, latest, choices, MERGE_PROVENANCE)
    return len(choices)
