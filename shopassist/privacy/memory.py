"""Personal data, erasures and guest merges in memory."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from shopassist.credits.memory.ledger import find_last_erasure
from shopassist.credits.models import CreditHold, CreditTransaction, ErasedBalance, Erasure, UserCredits
from shopassist.db.memory import MemoryRepository, MemorySession, MemoryStore, copy_row
from shopassist.db.ports import UserHashFunction
from shopassist.errors import AccountErasedError, IntegrityError
from shopassist.privacy.models import (
    ErasureListEntry,
    ErasurePolicy,
    ErasureRequest,
    GuestMerge,
    build_closed_account,
    build_closing_entry,
    build_erased_balance,
    build_erasure,
    is_guest_erasure,
)
from shopassist.privacy.personal_data import OnErasure, PersonalDataTable, get_personal_data_tables
from shopassist.privacy.ports import DataOwner, PersonalDataPage, PrimaryKey


def get_owner(holding: PersonalDataTable, row: Any) -> Any:
    """Whose a row is."""
    column, *inside = holding.owner_path
    owner = getattr(row, column)
    return owner.get(inside[0]) if inside else owner


def get_primary_key(holding: PersonalDataTable, row: Any) -> PrimaryKey:
    """Its primary key."""
    return tuple(getattr(row, name) for name in holding.key_columns)


def find_owned_rows(
    store: MemoryStore, holding: PersonalDataTable, user_id: str, is_guest: bool
) -> list[tuple[Any, Any]]:
    """The rows of that user with their places, by primary key."""
    found = [
        (place, row)
        for place, row in store.table(holding.model).items()
        if get_owner(holding, row) == user_id
        and (not holding.guest_column or getattr(row, holding.guest_column) == is_guest)
    ]
    return sorted(found, key=lambda item: get_primary_key(holding, item[1]))


def erase_rows(
    store: MemoryStore, holding: PersonalDataTable, user_id: str, is_guest: bool, pseudonym: str, limit: int
) -> int:
    """Erase up to `limit` rows by the holding's own rule; how many."""
    rows, chosen = store.table(holding.model), find_owned_rows(store, holding, user_id, is_guest)[:limit]
    for place, row in chosen:
        if holding.on_erasure in {OnErasure.DELETE, OnErasure.WITH_ACCOUNT}:
            del rows[place]
        else:
            owner = None if holding.on_erasure is OnErasure.ANONYMISE else pseudonym
            rows[place] = copy_row(row, **{holding.owner_path[0]: owner, **dict.fromkeys(holding.cleared_columns)})
    return len(chosen)


def move_rows(session: MemorySession, holding: PersonalDataTable, guest_id: str, user_id: str) -> int:
    """Make a guest's rows the user's, but those whose key the user has already; how many."""
    rows, moved = session.store.table(holding.model), 0
    for place, row in find_owned_rows(session.store, holding, guest_id, is_guest=True):
        changed = copy_row(
            row, **{holding.owner_path[0]: user_id, **({holding.guest_column: False} if holding.guest_column else {})}
        )
        key = get_primary_key(holding, changed)
        new_place = place if holding.owner_path[0] not in holding.key_columns else (key if len(key) > 1 else key[0])
        if new_place == place or new_place not in rows:
            session.remove(rows, place)
            session.put(rows, new_place, changed)
            moved += 1
    return moved


class MemoryPersonalDataReader:
    """Implements `PersonalDataReader`."""

    def __init__(self, store: MemoryStore) -> None:
        """Reads `store`."""
        self._store = store

    async def read_page(
        self, holding: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: PrimaryKey | None = None
    ) -> PersonalDataPage:
        async with self._store.lock:
            rows = [row for _, row in find_owned_rows(self._store, holding, user_id, is_guest)]
            page = [row for row in rows if after is None or get_primary_key(holding, row) > after][:limit]
            last = get_primary_key(holding, page[-1]) if len(page) == limit else None
            return PersonalDataPage(
                [{name: getattr(row, name) for name in holding.exported_columns} for row in page], last
            )

    async def list_owners(self, holding: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        async with self._store.lock:
            oldest: dict[str, DataOwner] = {}
            for row in self._store.table(holding.model).values():
                owner, since = get_owner(holding, row), getattr(row, holding.created_column or "")
                if owner > after_user_id and (owner not in oldest or since < oldest[owner].since):
                    oldest[owner] = DataOwner(
                        owner, getattr(row, holding.guest_column) if holding.guest_column else None, since
                    )
            return [oldest[owner] for owner in sorted(oldest)][:limit]


class MemoryErasureRepository:
    """Implements `ErasureRepository`. Nothing is awaited under the lock, so each step happens at once or not at all."""

    def __init__(self, store: MemoryStore, policy: ErasurePolicy) -> None:
        """`policy` says how long what is needed of the erased stays."""
        self._store = store
        self._policy = policy

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        async with self._store.lock:
            last = find_last_erasure(self._store, request.subject_hash)
            account = self._store.table(UserCredits).get(request.user_id)
            is_guest = is_guest_erasure(request, account, last)
            if last is not None and last.finished_at is None:
                return copy_row(last)
            holdings = get_personal_data_tables(is_guest, account is not None)
            if account is None and not any(
                find_owned_rows(self._store, one, request.user_id, is_guest) for one in holdings
            ):
                return last and copy_row(last)
            erasure = build_erasure(request, is_guest, account is not None, self._store.now())
            if account is not None:
                self._close(account, erasure)
            self._store.table(Erasure)[erasure.id] = erasure
            return copy_row(erasure)

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        async with self._store.lock:
            erasure = self._store.table(Erasure)[erasure_id]
            if erasure.user_id is None or erasure.pseudonym is None:
                return copy_row(erasure)
            left, counts = limit, dict(erasure.counts)
            for one in get_personal_data_tables(erasure.is_guest, erasure.had_account):
                erased = erase_rows(self._store, one, erasure.user_id, erasure.is_guest, erasure.pseudonym, left)
                left -= erased
                if erased:
                    counts[one.name] = counts.get(one.name, 0) + erased
            erasure.counts = counts
            if left > 0:
                erasure.finished_at = self._store.now()
                erasure.user_id = erasure.pseudonym = None
            return copy_row(erasure)

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        async with self._store.lock:
            rows = [row for row in self._store.table(Erasure).values() if row.finished_at is None]
            return [row.id for row in sorted(rows, key=lambda row: row.requested_at)][:limit]

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        async with self._store.lock:
            rows = [
                ErasureListEntry(row.id, row.subject_hash, row.requested_at)
                for row in self._store.table(Erasure).values()
            ]
            rows.sort(key=lambda row: (row.erased_at, row.id))
            return [row for row in rows if after is None or (row.erased_at, row.id) > (after.erased_at, after.id)][
                :limit
            ]

    async def delete_expired(self, limit: int = 1000) -> int:
        async with self._store.lock:
            now, oldest = self._store.now(), self._store.get_time_before(self._policy.list_lifetime)
            balances = [key for key, row in self._store.table(ErasedBalance).items() if row.forget_at <= now][:limit]
            for key in balances:
                del self._store.table(ErasedBalance)[key]
            rows = self._store.table(Erasure).values()
            past = [row.id for row in rows if row.finished_at is not None and row.requested_at < oldest][:limit]
            for erasure_id in past:
                del self._store.table(Erasure)[erasure_id]
            return len(balances) + len(past)

    def _close(self, account: UserCredits, erasure: Erasure) -> None:
        """Give holds back, keep the balance under the hash, and let a closed account stand under the pseudonym."""
        store = self._store
        holds = list(store.user_rows(CreditHold, account.user_id))
        for hold_id in holds:
            del store.table(CreditHold)[hold_id]
        erasure.counts = {"account": 1, "holds": len(holds)}
        store.table(ErasedBalance)[erasure.subject_hash] = build_erased_balance(account, erasure, self._policy)
        del store.table(UserCredits)[account.user_id]
        store.table(UserCredits)[erasure.pseudonym or ""] = build_closed_account(account, erasure)
        last_row = build_closing_entry(account, erasure)
        if last_row is not None:
            last_row.id = store.next_id(CreditTransaction)
            store.table(CreditTransaction)[last_row.id] = last_row


class MemoryGuestMergeRepository(MemoryRepository):
    """Implements `GuestMergeRepository`; units of work are one at a time."""

    def __init__(self, session: MemorySession, hash_user_id: UserHashFunction) -> None:
        """`hash_user_id` hashes user ids."""
        super().__init__(session)
        self._hash_user_id = hash_user_id

    async def lock(self, guest_id: str, user_id: str) -> None:
        for one in (guest_id, user_id):
            last = find_last_erasure(self.store, self._hash_user_id(one))
            if last is not None and last.finished_at is None:
                raise AccountErasedError

    async def find_merge(self, guest_id: str) -> GuestMerge | None:
        merge = self.store.table(GuestMerge).get(guest_id)
        return merge and copy_row(merge)

    async def is_guest(self, guest_id: str) -> bool | None:
        account = self.store.table(UserCredits).get(guest_id)
        return None if account is None else account.is_guest

    async def move_rows(self, holdings: Sequence[PersonalDataTable], guest_id: str, user_id: str) -> dict[str, int]:
        return {one.name: move_rows(self.session, one, guest_id, user_id) for one in holdings}

    async def insert_merge(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        if guest_id in self.store.table(GuestMerge):
            raise IntegrityError
        merge = GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=self.store.now(), moved=moved)
        self.session.put(self.store.table(GuestMerge), guest_id, copy_row(merge))
        return merge
