"""State in memory, and changes to it that can be undone."""

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlmodel import SQLModel

from shopassist.db.memory.owned_rows import OwnedRows
from shopassist.db.ports import Clock
from shopassist.models import (
    AdminAct,
    ConsentEvent,
    ConsentNotice,
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    GuestMerge,
    IdempotentAnswer,
    MaintenanceRun,
    Product,
    QueryCache,
    UserConsent,
    UserCredits,
)

Key = TypeVar("Key")
Value = TypeVar("Value")


class MemoryStore:
    """Everything the in-memory twin keeps. `lock` serialises ledger calls and units of work."""

    def __init__(self, clock: Clock) -> None:
        """`clock` decides about resets and expiry; without an instant of its own, the process's clock does."""
        self.clock = clock
        self.lock = asyncio.Lock()
        self.accounts: dict[str, UserCredits] = {}
        self.transactions: OwnedRows[int, CreditTransaction] = OwnedRows()
        self.holds: OwnedRows[UUID, CreditHold] = OwnedRows()
        self.consents: dict[str, UserConsent] = {}
        self.consent_events: OwnedRows[int, ConsentEvent] = OwnedRows()
        self.notices: dict[int, ConsentNotice] = {}
        self.admin_acts: dict[int, AdminAct] = {}
        self.cache: dict[str, QueryCache] = {}
        self.products: dict[tuple[str, str], Product] = {}
        self.replays: OwnedRows[tuple[str, str], IdempotentAnswer] = OwnedRows()
        self.erasures: dict[UUID, Erasure] = {}
        self.erased_balances: dict[str, ErasedBalance] = {}
        self.merges: dict[str, GuestMerge] = {}
        self.leases: dict[str, tuple[str, datetime]] = {}
        self.guest_networks: dict[tuple[date, str], int] = {}
        self.maintenance_runs: dict[int, MaintenanceRun] = {}
        self._last_ids: dict[str, int] = {}

    def rows(self, table: type[SQLModel]) -> dict[Any, Any]:
        """The rows of a table in which something is held of people, by primary key."""
        tables: dict[type[SQLModel], dict[Any, Any]] = {
            UserCredits: self.accounts,
            CreditHold: self.holds,
            CreditTransaction: self.transactions,
            UserConsent: self.consents,
            IdempotentAnswer: self.replays,
            GuestMerge: self.merges,
            ConsentEvent: self.consent_events,
            AdminAct: self.admin_acts,
        }
        return tables[table]

    def now(self) -> datetime:
        """The deciding instant."""
        return self.clock.instant() or datetime.now(UTC)

    def next_id(self, table: str) -> int:
        """Ids of a table grow and are never used twice, as a sequence's."""
        self._last_ids[table] = self._last_ids.get(table, 0) + 1
        return self._last_ids[table]

    def ago(self, span: timedelta) -> datetime:
        """The instant `span` before now."""
        return self.now() - span

    async def close(self) -> None:
        """Nothing is open."""


class MemorySession:
    """Changes to a store that are undone by `rollback`."""

    def __init__(self, store: MemoryStore) -> None:
        """Hold `store.lock` for as long as the session lives."""
        self.store = store
        self._undo: list[Callable[[], Any]] = []

    def put(self, table: dict[Key, Value], key: Key, value: Value) -> None:
        """Set `table[key]`."""
        self._remember(table, key)
        table[key] = value

    def remove(self, table: dict[Key, Value], key: Key) -> None:
        """Delete `table[key]`."""
        self._remember(table, key)
        del table[key]

    def commit(self) -> None:
        """Keep what was done."""
        self._undo.clear()

    def rollback(self) -> None:
        """Undo what was done, the last change first."""
        while self._undo:
            self._undo.pop()()

    def _remember(self, table: dict[Key, Value], key: Key) -> None:
        if key in table:
            previous = table[key]
            self._undo.append(lambda: table.__setitem__(key, previous))
        else:
            self._undo.append(lambda: table.pop(key, None))
