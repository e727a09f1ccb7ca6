"""Personal data, erasures and guest merges in memory."""

from operator import itemgetter
from typing import Any
from uuid import UUID

from shopassist.credits.memory import find_last_erasure
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    IdempotentAnswer,
    UserCredits,
)
from shopassist.db.memory import MemoryRepository, MemorySession, MemoryStore, copy_row
from shopassist.db.ports import UserHashFunction
from shopassist.errors import AccountErasedError, IntegrityError
from shopassist.privacy.models import (
    ErasureListEntry,
    ErasurePolicy,
    ErasureRequest,
    GuestMerge,
    build_erasure,
    close_account,
    decide_is_guest,
    record_progress,
)
from shopassist.privacy.personal_data import DataOwner, PersonalDataPage, PersonalDataTable, get_personal_data_tables


def get_owner_id(table: PersonalDataTable, row: Any) -> Any:
    """Return the owner's id."""
    column, *json_key = table.owner_path
    owner = getattr(row, column)
    return owner.get(json_key[0]) if json_key else owner


def find_owned_rows(
    store: MemoryStore, table: PersonalDataTable, user_id: str, is_guest: bool
) -> list[tuple[Any, Any]]:
    """Return the user's rows with their primary keys, by which they are sorted."""
    found = [
        (key, row)
        for key, row in store.table(table.model).items()
        if get_owner_id(table, row) == user_id
        and (not table.guest_column or getattr(row, table.guest_column) == is_guest)
    ]
    return sorted(found, key=itemgetter(0))


class MemoryPersonalDataReader:
    """Implements `PersonalDataReader`."""

    def __init__(self, store: MemoryStore) -> None:
        """Read `store`."""
        self._store = store

    async def read_page(
        self, table: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: Any = None
    ) -> PersonalDataPage:
        async with self._store.lock:
            found = find_owned_rows(self._store, table, user_id, is_guest)
            page = [(key, row) for key, row in found if after is None or key > after][:limit]
            rows = [{name: getattr(row, name) for name in table.exported_columns} for _, row in page]
            return PersonalDataPage(rows, page[-1][0] if len(page) == limit else None)

    async def list_owners(self, table: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        async with self._store.lock:
            oldest: dict[str, DataOwner] = {}
            for row in self._store.table(table.model).values():
                owner, since = get_owner_id(table, row), getattr(row, table.created_column or "")
                if owner > after_user_id and (owner not in oldest or since < oldest[owner].since):
                    is_guest = getattr(row, table.guest_column) if table.guest_column else None
                    oldest[owner] = DataOwner(owner, is_guest, since)
            return [oldest[owner] for owner in sorted(oldest)][:limit]


class MemoryErasureRepository:
    """Implements `ErasureRepository`. Nothing is awaited under the lock, so each step is atomic."""

    def __init__(self, store: MemoryStore, policy: ErasurePolicy) -> None:
        """`policy` sets the retention of balances and of the list of erasures."""
        self._store = store
        self._policy = policy

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        async with self._store.lock:
            last = find_last_erasure(self._store, request.subject_hash)
            account = self._store.table(UserCredits).get(request.user_id)
            pending = last if last and last.finished_at is None else None
            is_guest = decide_is_guest(request.is_guest, account or pending)
            tables = get_personal_data_tables(is_guest, account is not None)
            if pending or not (
                account or any(find_owned_rows(self._store, table, request.user_id, is_guest) for table in tables)
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
            left, erased = limit, {}
            for table in get_personal_data_tables(erasure.is_guest, erasure.had_account):
                rows, values = self._store.table(table.model), table.build_erased_values(erasure.pseudonym)
                chosen = find_owned_rows(self._store, table, erasure.user_id, erasure.is_guest)[:left]
                for key, row in chosen:
                    if values is None:
                        del rows[key]
                    else:
                        rows[key] = copy_row(row, **values)
                erased[table.name] = len(chosen)
                left -= len(chosen)
            record_progress(erasure, erased, self._store.now() if left > 0 else None)
            return copy_row(erasure)

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        async with self._store.lock:
            rows = [row for row in self._store.table(Erasure).values() if row.finished_at is None]
            return [row.id for row in sorted(rows, key=lambda row: row.requested_at)][:limit]

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        async with self._store.lock:
            rows = sorted(self._store.table(Erasure).values(), key=lambda row: (row.requested_at, row.id))
            return [
                ErasureListEntry(row.id, row.subject_hash, row.requested_at)
                for row in rows
                if after is None or (row.requested_at, row.id) > (after.erased_at, after.id)
            ][:limit]

    async def delete_expired(self, limit: int = 1000) -> int:
        async with self._store.lock:
            now, oldest = self._store.now(), self._store.now() - self._policy.list_lifetime
            balances = [key for key, row in self._store.table(ErasedBalance).items() if row.forget_at <= now][:limit]
            for key in balances:
                del self._store.table(ErasedBalance)[key]
            rows = self._store.table(Erasure).values()
            expired = [row.id for row in rows if row.finished_at is not None and row.requested_at < oldest][:limit]
            for erasure_id in expired:
                del self._store.table(Erasure)[erasure_id]
            return len(balances) + len(expired)

    def _close(self, account: UserCredits, erasure: Erasure) -> None:
        """Release holds, keep the balance under the hash, and close the account under the pseudonym."""
        store = self._store
        holds = list(store.user_rows(CreditHold, account.user_id))
        for hold_id in holds:
            del store.table(CreditHold)[hold_id]
        erasure.counts = {"account": 1, "holds": len(holds)}
        kept, closed, closing_entry = close_account(account, erasure, self._policy)
        store.table(ErasedBalance)[kept.subject_hash] = kept
        del store.table(UserCredits)[account.user_id]
        store.table(UserCredits)[closed.user_id] = closed
        if closing_entry is not None:
            closing_entry.id = store.next_id(CreditTransaction)
            store.table(CreditTransaction)[closing_entry.id] = closing_entry


class MemoryGuestMergeRepository(MemoryRepository):
    """Implements `GuestMergeRepository`; units of work run one at a time."""

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

    async def move_answers(self, guest_id: str, user_id: str) -> int:
        answers, moved = self.store.table(IdempotentAnswer), 0
        for row in list(self.store.user_rows(IdempotentAnswer, guest_id).values()):
            if (user_id, row.idempotency_key) not in answers:
                self.session.remove(answers, (guest_id, row.idempotency_key))
                self.session.put(answers, (user_id, row.idempotency_key), copy_row(row, user_id=user_id))
                moved += 1
        return moved

    async def insert_merge(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        if guest_id in self.store.table(GuestMerge):
            raise IntegrityError
        merge = GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=self.store.now(), moved=moved)
        self.session.put(self.store.table(GuestMerge), guest_id, copy_row(merge))
        return merge
