"""Services for privacy requests: export and erase the data of a user, and merge a guest into a user."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from math import inf
from uuid import UUID

from pydantic_core import to_json

from shopassist.consent.models import ConsentProvenance, ConsentSource, ConsentSubject
from shopassist.consent.service import ConsentChoice, apply_choices, lock_latest_events
from shopassist.credits.models import Erasure
from shopassist.db.columns import utc_now
from shopassist.db.ports import Clock, JobResult, UnitOfWork, UserHashFunction, run_in_batches
from shopassist.errors import GuestMergedError, IntegrityError, NotFoundError
from shopassist.privacy.models import (
    AskedBy,
    ErasureListEntry,
    ErasureReceipt,
    ErasureRequest,
    GuestMerge,
    GuestMerged,
    decide_is_guest,
)
from shopassist.privacy.personal_data import (
    MOVED_ON_MERGE,
    PERSONAL_DATA_TABLES,
    ErasureRepository,
    OnErasure,
    PersonalDataReader,
    PersonalDataTable,
    PrivacyRepositories,
    get_personal_data_tables,
)
from shopassist.text import validate_user_id

EXPORT_PAGE_ROWS = 500
"""Rows of an export in memory at a time."""
ERASURE_PAGE_ROWS = 1000
MAX_WAIT_SECONDS = 5.0
"""How long a caller waits for an erasure; afterwards a job finishes it."""

NO_PERSONAL_DATA = "Nothing is held of this user."
UNKNOWN_GUEST = "Nothing is known of this guest session."
MERGE_PROVENANCE = ConsentProvenance(ConsentSource.GUEST_MERGE)


class ExportService:
    """Exports the data of a user (`UserExport`)."""

    def __init__(
        self, personal_data: PersonalDataReader, unit_of_work: UnitOfWork[PrivacyRepositories], clock: Clock
    ) -> None:
        """Take the time of an export from `clock`."""
        self._personal_data = personal_data
        self._unit_of_work = unit_of_work
        self._clock = clock

    async def export(self, user_id: str, is_guest: bool | None) -> AsyncIterator[bytes]:
        """Return the parts of a JSON document. With `is_guest=None` the account decides whether it is a guest.

        Raises `SessionRefusedError` for a guest who names a registered account, before the first part.
        """
        validate_user_id(user_id)
        account = await self._unit_of_work.run(lambda work: work.credits.get_user_credits(user_id), repeatable=True)
        is_guest = decide_is_guest(is_guest, account)
        return self._write(user_id, is_guest, get_personal_data_tables(is_guest, account is not None))

    async def _write(self, user_id: str, is_guest: bool, tables: Sequence[PersonalDataTable]) -> AsyncIterator[bytes]:
        head = {
            "format": "shopassist.user-export",
            "version": 1,
            "exported_at": self._clock.instant() or utc_now(),
            "user_id": user_id,
            "is_guest": is_guest,
        }
        yield to_json(head)[:-1] + b',"held":{'
        for number, table in enumerate(tables):
            yield (b"," if number else b"") + to_json(table.name) + b":["
            after = None
            while True:
                page = await self._personal_data.read_page(table, user_id, is_guest, EXPORT_PAGE_ROWS, after)
                if page.rows:
                    yield (b"" if after is None else b",") + to_json(page.rows)[1:-1]
                if page.last is None:
                    break
                after = page.last
            yield b"]"
        yield b"}}\n"


class ErasureService:
    """Erases users, finishes interrupted erasures, and repeats erasures after a restore."""

    def __init__(
        self,
        erasures: ErasureRepository,
        personal_data: PersonalDataReader,
        hash_user_id: UserHashFunction,
        finished_counts: Counter[str],
    ) -> None:
        """Count finished erasures in `finished_counts`, by who asked for them (`AskedBy`)."""
        self._finished_counts = finished_counts
        self._erasures = erasures
        self._personal_data = personal_data
        self._hash_user_id = hash_user_id

    async def erase(
        self,
        user_id: str,
        is_guest: bool | None,
        asked_by: AskedBy = AskedBy.USER,
        patience_seconds: float = MAX_WAIT_SECONDS,
    ) -> ErasureReceipt:
        """Erase a user, or continue; return the last receipt when nothing is held any more.

        After `patience_seconds` the rest is left to `finish_pending`. With `is_guest=None` the account decides whether
        it is a guest. Raises `NotFoundError` when nothing was ever held, and `SessionRefusedError` for a guest who
        names a registered account.
        """
        request = ErasureRequest(validate_user_id(user_id), self._hash_user_id(user_id), is_guest, asked_by)
        erasure = await self._erasures.begin(request)
        if erasure is None:
            raise NotFoundError(NO_PERSONAL_DATA)
        deadline = time.monotonic() + patience_seconds
        while erasure.finished_at is None:
            erasure = await self._advance(erasure.id)
            if time.monotonic() > deadline:
                break
        return build_receipt(erasure)

    async def finish_pending(self, seconds: float = inf) -> JobResult:
        """Finish erasures that are not finished, for up to `seconds`; return how many were."""
        deadline = time.monotonic() + seconds
        finished = 0
        while pending := await self._erasures.list_unfinished():
            for erasure_id in pending:
                while (await self._advance(erasure_id)).finished_at is None:
                    if time.monotonic() >= deadline:
                        return JobResult.incomplete(finished)
                finished += 1
        return JobResult(finished)

    async def delete_expired(self, seconds: float = inf) -> JobResult:
        """Delete expired balances and erasures; return how many."""
        return await run_in_batches(self._erasures.delete_expired, seconds=seconds)

    async def list_erasures(self) -> list[ErasureListEntry]:
        """Return the list of erasures, the oldest first."""
        listed: list[ErasureListEntry] = []
        while page := await self._erasures.list_erasures(ERASURE_PAGE_ROWS, listed[-1] if listed else None):
            listed += page
        return listed

    async def repeat_listed(self, listed: Mapping[str, ErasureListEntry]) -> list[ErasureReceipt]:
        """Finish erasures that are not finished, then erase the users of a list, by hash, whose data is older.

        A restored backup brought it back; data that is newer than the erasure stays. Returns the new receipts.
        """
        await self.finish_pending()
        receipts = []
        for table in PERSONAL_DATA_TABLES:
            after = ""
            while table.created_column and (
                page := await self._personal_data.list_owners(table, ERASURE_PAGE_ROWS, after)
            ):
                for owner in page:
                    entry = listed.get(self._hash_user_id(owner.user_id))
                    if entry is not None and owner.since <= entry.erased_at:
                        receipts.append(await self.erase(owner.user_id, owner.is_guest, AskedBy.REPLAY, inf))
                after = page[-1].user_id
        return receipts

    async def _advance(self, erasure_id: UUID) -> Erasure:
        erasure = await self._erasures.advance(erasure_id)
        if erasure.finished_at is not None:
            self._finished_counts[erasure.asked_by] += 1
        return erasure


def build_receipt(erasure: Erasure) -> ErasureReceipt:
    """Build the receipt of an erasure."""
    kept_names = {table.name for table in PERSONAL_DATA_TABLES if table.on_erasure is not OnErasure.DELETE}
    return ErasureReceipt(
        receipt_id=erasure.id,
        requested_at=erasure.requested_at,
        finished_at=erasure.finished_at,
        erased={name: count for name, count in erasure.counts.items() if name not in kept_names},
        pseudonymised={name: count for name, count in erasure.counts.items() if name in kept_names},
    )


class GuestMergeService:
    """Merges a guest into a registered user, once. The session id alone proves that the caller is the guest."""

    def __init__(self, unit_of_work: UnitOfWork[PrivacyRepositories]) -> None:
        """Do each merge in one transaction."""
        self._unit_of_work = unit_of_work

    async def merge(self, guest_id: str, user_id: str, provenance: ConsentProvenance = MERGE_PROVENANCE) -> GuestMerged:
        """Move the guest's data to `user_id`; a repetition returns the first result. Credits are not added.

        A privacy signal of the request turns marketing off for both, so that no grant against it is moved.
        Raises `NotFoundError` when there is no guest of that id, `GuestMergedError` when the guest was merged into
        another account, and `AccountErasedError` while one of them is being erased.
        """

        async def move(work: PrivacyRepositories) -> GuestMerge:
            await work.guest_merges.lock(guest_id, user_id)
            earlier = await work.guest_merges.find_merge(guest_id)
            if earlier is not None:
                return earlier
            account = await work.credits.get_user_credits(guest_id)
            guest = ConsentSubject(guest_id, is_guest=True)
            decided = await lock_latest_events(work, guest)
            if guest_id == user_id or not (account.is_guest if account else decided):
                raise NotFoundError(UNKNOWN_GUEST)
            for event in await apply_choices(work, guest, decided, [], provenance):
                decided[event.purpose] = event
            moved = {MOVED_ON_MERGE: await work.guest_merges.move_answers(guest_id, user_id)} if account else {}
            user = ConsentSubject(user_id, is_guest=False)
            latest = await lock_latest_events(work, user)
            # The user's own decisions are kept.
            choices = [
                ConsentChoice(event.purpose, event.granted, event.notice_id)
                for event in decided.values()
                if event.purpose not in latest
            ]
            await apply_choices(work, user, latest, choices, provenance)
            moved["consents"] = len(choices)
            return await work.guest_merges.insert_merge(guest_id, user_id, moved)

        try:
            merge = await self._unit_of_work.run(move, repeatable=True)
        except IntegrityError:
            raise GuestMergedError from None
        if merge.user_id != user_id:
            raise GuestMergedError
        return GuestMerged(merged_at=merge.merged_at, moved=merge.moved)
