"""The rows of users in memory, read and replaced as a whole."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.cache.memory import keep_answer
from shopassist.cache.models import StoredAnswer
from shopassist.consent.models import ConsentEvent, ConsentNotice, UserConsent
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    IdempotentAnswer,
    UserCredits,
)
from shopassist.db.memory import MemoryStore, copy_row
from shopassist.privacy.models import GuestMerge
from shopassist.rollout.models import Erasures, Rows

ACCOUNT_TABLES: tuple[type[SQLModel], ...] = (UserCredits, UserConsent)
"""Tables with one row per user, by user id."""

LIST_TABLES: tuple[type[SQLModel], ...] = (CreditHold, CreditTransaction, ConsentEvent, IdempotentAnswer)
"""Tables with many rows per user (`RowsByUser`)."""


class MemoryUserRows:
    """Reads and replaces the rows of users in a store. Nothing is awaited under its lock: each call is atomic."""

    def __init__(self, store: MemoryStore) -> None:
        """Use the rows of `store`."""
        self._store = store

    async def read(self, user_ids: Sequence[str]) -> dict[str, Rows]:
        """Return copies of the rows of those users who have any."""
        async with self._store.lock:
            found = {user_id: self._find(user_id) for user_id in user_ids}
            return {
                user_id: {table: [copy_row(row) for row in of_table] for table, of_table in rows.items()}
                for user_id, rows in found.items()
                if rows
            }

    async def write(self, user_id: str, rows: Rows) -> None:
        """Replace all rows of a user; histories get new ids, merges are only added.

        The rows themselves are stored, not copies: the caller must not use them any more.
        """
        async with self._store.lock:
            for table in ACCOUNT_TABLES:
                self._store.table(table).pop(user_id, None)
            for table in LIST_TABLES:
                self._store.user_table(table).remove_user(user_id)
            for table, of_table in rows.items():
                self._insert(table, of_table)

    async def pop(self, user_id: str) -> Rows:
        """Remove the rows of a user and return them; merges stay."""
        rows = self._find(user_id)
        await self.write(user_id, {})
        return rows

    async def list_owners(self, limit: int | None = None, after_user_id: str = "") -> list[str]:
        """Return the users who have rows, by user id, after `after_user_id`."""
        async with self._store.lock:
            owners = {*self._store.table(UserCredits), *self._store.table(UserConsent)}
            for table in LIST_TABLES:
                owners |= self._store.user_table(table).list_users()
        return sorted(user_id for user_id in owners if user_id > after_user_id)[:limit]

    def get_account(self, user_id: str) -> UserCredits | None:
        """Return the stored account itself, not a copy."""
        return self._store.table(UserCredits).get(user_id)

    def list_admins_mentioning(self, user_id: str) -> list[str]:
        """Return the administrators with stored idempotent responses about a user."""
        answers = self._store.table(IdempotentAnswer).values()
        return sorted({row.user_id for row in answers if row.response.get("user_id") == user_id})

    async def anonymise_merges(self, user_id: str) -> None:
        """Remove an erased user from the guest merges, and the merge of an erased guest."""
        async with self._store.lock:
            for key in self._find_merges(user_id):
                merge = self._store.table(GuestMerge).pop(key)
                if merge.guest_id != user_id:
                    self._store.table(GuestMerge)[key] = copy_row(merge, user_id=None)

    async def apply_erasures(self, erasures: Erasures) -> None:
        """Store erasures that happened in PostgreSQL, without the names of unfinished ones."""
        async with self._store.lock:
            for row in erasures[0]:
                self._store.table(Erasure)[row.id] = copy_row(row, user_id=None, pseudonym=None)
            self._store.table(ErasedBalance).update({row.subject_hash: copy_row(row) for row in erasures[1]})

    async def add_notices(self, notices: Sequence[ConsentNotice]) -> None:
        """Store notices under the ids that they have in PostgreSQL."""
        async with self._store.lock:
            self._store.table(ConsentNotice).update((row.id, copy_row(row)) for row in notices if row.id is not None)

    async def keep_answer(self, answer: StoredAnswer) -> None:
        """Store an answer that was stored in PostgreSQL."""
        async with self._store.lock:
            keep_answer(self._store, answer)

    def pop_audit_entries(self) -> list[AdminAct]:
        """Remove all audit entries and return them."""
        entries = list(self._store.table(AdminAct).values())
        self._store.table(AdminAct).clear()
        return entries

    def restore_audit_entries(self, entries: Sequence[AdminAct]) -> None:
        """Store entries that `pop_audit_entries` returned."""
        self._store.table(AdminAct).update({entry.id: entry for entry in entries if entry.id is not None})

    def _find(self, user_id: str) -> Rows:
        store = self._store
        rows: Rows = {table: [store.table(table).get(user_id)] for table in ACCOUNT_TABLES}
        for table in LIST_TABLES:
            owned: dict[Any, Any] = store.user_rows(table, user_id)
            rows[table] = [row for _, row in sorted(owned.items())]
        rows[GuestMerge] = [store.table(GuestMerge)[key] for key in self._find_merges(user_id)]
        return {table: of_table for table, of_table in rows.items() if any(of_table)}

    def _find_merges(self, user_id: str) -> list[str]:
        return [key for key, row in self._store.table(GuestMerge).items() if user_id in {row.user_id, row.guest_id}]

    def _insert(self, table: type[SQLModel], rows: list[Any]) -> None:
        stored = self._store.table(table)
        key = [column.name for column in table.__table__.primary_key]  # type: ignore[attr-defined] # SQLModel's
        for row in rows:
            if key == ["id"]:
                row.id = self._store.next_id(table)
            values = tuple(getattr(row, name) for name in key)
            stored[values if len(values) > 1 else values[0]] = row
