"""In-memory storage: the store, sessions with rollback, the unit of work, and the base repository."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlmodel import SQLModel

from shopassist.db.ports import Clock, Repositories, Result, TransactionBody

Row = TypeVar("Row", bound=SQLModel)
Key = TypeVar("Key")
Value = TypeVar("Value")


class RowsByUser(dict[Any, Value]):
    """Rows of a table by primary key, with an index by user id. Change it by key only: `update` skips the index."""

    def __init__(self) -> None:
        super().__init__()
        self._by_user: dict[Any, dict[Any, Value]] = {}

    def get_for_user(self, user_id: str) -> dict[Any, Value]:
        """Return the rows of one user by primary key, oldest first."""
        return self._by_user.get(user_id, {})

    def list_users(self) -> set[str]:
        """Return the ids of all users who have rows."""
        return set(self._by_user)

    def remove_user(self, user_id: str) -> None:
        """Remove all rows of one user."""
        for key in self._by_user.pop(user_id, {}):
            super().__delitem__(key)

    def __setitem__(self, key: Any, row: Any) -> None:
        self._remove_from_index(key)
        super().__setitem__(key, row)
        self._by_user.setdefault(row.user_id, {})[key] = row

    def __delitem__(self, key: Any) -> None:
        self._remove_from_index(key)
        super().__delitem__(key)

    def pop(self, key: Any, default: Any = None) -> Any:
        """Remove the row and return it, or `default` if there is none."""
        self._remove_from_index(key)
        return super().pop(key, default)

    def _remove_from_index(self, key: Any) -> None:
        row: Any = self.get(key)
        if row is not None:
            rows = self._by_user[row.user_id]
            del rows[key]
            if not rows:
                del self._by_user[row.user_id]


class MemoryStore:
    """The rows of the in-memory storage. `lock` serialises ledger calls and units of work."""

    def __init__(self, clock: Clock) -> None:
        """`clock` decides about resets and expiry; if it has no instant, the process's clock does."""
        self.clock = clock
        self.lock = asyncio.Lock()
        self._tables: dict[type[SQLModel], dict[Any, Any]] = {}
        self._last_ids = Counter[type[SQLModel]]()

    def table(self, model: type[Row]) -> dict[Any, Row]:
        """Return the rows of a table by primary key."""
        if model not in self._tables:
            field = model.model_fields.get("user_id")
            self._tables[model] = RowsByUser() if field is not None and field.annotation is str else {}
        return self._tables[model]

    def user_table(self, model: type[Row]) -> RowsByUser[Row]:
        """Return the rows of a table whose `user_id` is never null."""
        rows = self.table(model)
        assert isinstance(rows, RowsByUser)  # noqa: S101 - a mistake of the caller
        return rows

    def user_rows(self, model: type[Row], user_id: str) -> dict[Any, Row]:
        """Return one user's rows of such a table by primary key."""
        return self.user_table(model).get_for_user(user_id)

    def now(self) -> datetime:
        """Return the deciding instant."""
        return self.clock.instant() or datetime.now(UTC)

    def next_id(self, model: type[SQLModel]) -> int:
        """Return a new id for a table: like those of a sequence, ids grow and are never reused."""
        self._last_ids[model] += 1
        return self._last_ids[model]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


class MemorySession:
    """Records changes to a store so that `rollback` can undo them."""

    def __init__(self, store: MemoryStore) -> None:
        """Start without changes. The caller must hold `store.lock` until the session ends."""
        self.store = store
        self._undo: list[Callable[[], Any]] = []

    def put(self, table: dict[Key, Value], key: Key, value: Value) -> None:
        """Set `table[key]`."""
        self._record_undo(table, key)
        table[key] = value

    def remove(self, table: dict[Key, Value], key: Key) -> None:
        """Delete `table[key]`."""
        self._record_undo(table, key)
        del table[key]

    def rollback(self) -> None:
        """Undo the changes, the last one first."""
        while self._undo:
            self._undo.pop()()

    def _record_undo(self, table: dict[Key, Value], key: Key) -> None:
        if key in table:
            previous = table[key]
            self._undo.append(lambda: table.__setitem__(key, previous))
        else:
            self._undo.append(lambda: table.pop(key, None))


class MemoryRepository:
    """Base class of repositories. The unit of work that opened the session commits it."""

    def __init__(self, session: MemorySession) -> None:
        self.session = session
        self.store = session.store


def copy_row(row: Row, **updates: Any) -> Row:
    """Return a copy of a row with some fields replaced, so that callers never hold stored rows."""
    return type(row)(**{name: getattr(row, name) for name in type(row).model_fields} | updates)


class MemoryUnitOfWork(Generic[Repositories]):
    """Implements `UnitOfWork`; units run one at a time."""

    def __init__(self, store: MemoryStore, repositories: Callable[[MemorySession], Repositories]) -> None:
        self._store = store
        self._repositories = repositories

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        async with self._store.lock:
            session = MemorySession(self._store)
            try:
                yield self._repositories(session)
            except BaseException:
                session.rollback()
                raise

    async def run(self, body: TransactionBody[Repositories, Result], *_: object, **__: object) -> Result:
        """Run `body` once: no failure here needs a retry."""
        async with self() as work:
            return await body(work)
