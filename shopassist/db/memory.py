"""In-memory storage: the store, sessions with rollback, the unit of work, and the base repository."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.cache.models import QueryCache
from shopassist.catalog.models import Product
from shopassist.consent.models import ConsentEvent, ConsentNotice, UserConsent
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    IdempotentAnswer,
    UserCredits,
)
from shopassist.db.ports import Clock, Repositories, Result, TransactionBody
from shopassist.maintenance.models import MaintenanceRun
from shopassist.privacy.models import GuestMerge


class HasOwner(Protocol):
    """A row that has an owner, who never changes: another owner is another row in its place."""

    user_id: Any


OwnedRow = TypeVar("OwnedRow", bound=HasOwner)

Row = TypeVar("Row", bound=SQLModel)

RowKey = TypeVar("RowKey")


class RowsByUser(dict[RowKey, OwnedRow]):
    """Rows by primary key, as any table's, and by owner."""

    def __init__(self) -> None:
        """No rows."""
        super().__init__()
        self._by_owner: dict[Any, dict[RowKey, OwnedRow]] = {}

    def of(self, user_id: str) -> dict[RowKey, OwnedRow]:
        """The rows of one owner, in the order in which they came."""
        return self._by_owner.get(user_id, {})

    def owners(self) -> set[str]:
        """Everybody who has rows."""
        return set(self._by_owner)

    def disown_all(self, user_id: str) -> None:
        """Remove the rows of one owner."""
        for key in self._by_owner.pop(user_id, {}):
            super().__delitem__(key)

    def __setitem__(self, key: RowKey, row: OwnedRow) -> None:
        self._disown(key)
        super().__setitem__(key, row)
        self._by_owner.setdefault(row.user_id, {})[key] = row

    def __delitem__(self, key: RowKey) -> None:
        self._disown(key)
        super().__delitem__(key)

    def pop(self, key: RowKey, default: Any = None) -> Any:
        """Remove the row, if it is there."""
        self._disown(key)
        return super().pop(key, default)

    def _disown(self, key: RowKey) -> None:
        row = self.get(key)
        if row is not None:
            rows = self._by_owner[row.user_id]
            del rows[key]
            if not rows:
                del self._by_owner[row.user_id]


Key = TypeVar("Key")
Value = TypeVar("Value")


class MemoryStore:
    """Everything the in-memory twin keeps. `lock` serialises ledger calls and units of work."""

    def __init__(self, clock: Clock) -> None:
        """`clock` decides about resets and expiry; without an instant of its own, the process's clock does."""
        self.clock = clock
        self.lock = asyncio.Lock()
        self.accounts: dict[str, UserCredits] = {}
        self.transactions: RowsByUser[int, CreditTransaction] = RowsByUser()
        self.holds: RowsByUser[UUID, CreditHold] = RowsByUser()
        self.consents: dict[str, UserConsent] = {}
        self.consent_events: RowsByUser[int, ConsentEvent] = RowsByUser()
        self.notices: dict[int, ConsentNotice] = {}
        self.admin_acts: dict[int, AdminAct] = {}
        self.cache: dict[str, QueryCache] = {}
        self.products: dict[tuple[str, str], Product] = {}
        self.replays: RowsByUser[tuple[str, str], IdempotentAnswer] = RowsByUser()
        self.erasures: dict[UUID, Erasure] = {}
        self.erased_balances: dict[str, ErasedBalance] = {}
        self.guest_merges: dict[str, GuestMerge] = {}
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
            GuestMerge: self.guest_merges,
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


class MemoryRepository:
    """A repository speaks within one session; who opened the session commits it."""

    def __init__(self, session: MemorySession) -> None:
        """The store's clock decides."""
        self.session = session

    @property
    def store(self) -> MemoryStore:
        """The state behind the session."""
        return self.session.store

    async def commit(self) -> None:
        """Keep what was done."""
        self.session.commit()

    async def rollback(self) -> None:
        """Undo what was done."""
        self.session.rollback()


def copy_row(row: Row, **updates: Any) -> Row:
    """A row of its own, so that no caller holds the stored one."""
    values = {name: getattr(row, name) for name in type(row).model_fields}
    return type(row)(**{**values, **updates})


class MemoryUnitOfWork(Generic[Repositories]):
    """Implements `UnitOfWork`; one at a time."""

    def __init__(self, store: MemoryStore, repositories: Callable[[MemorySession], Repositories]) -> None:
        """Each unit has a session of its own."""
        self._store = store
        self._repositories = repositories

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one."""
        async with self._store.lock:
            session = MemorySession(self._store)
            try:
                yield self._repositories(session)
            except BaseException:
                session.rollback()
                raise
            session.commit()

    async def run(self, body: TransactionBody[Repositories, Result], *_: object, **__: object) -> Result:
        """Run `body` in one; there is no failure after which it would have to be run again."""
        async with self() as work:
            return await body(work)
