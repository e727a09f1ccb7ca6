"""Rows of a table that are somebody's, found by whose they are without looking at all of them."""

from typing import Any, Protocol, TypeVar


class Owned(Protocol):
    """A row that has an owner, who never changes: another owner is another row in its place."""

    user_id: Any


Key = TypeVar("Key")
Row = TypeVar("Row", bound=Owned)


class OwnedRows(dict[Key, Row]):
    """Rows by primary key, as any table's, and by owner."""

    def __init__(self) -> None:
        """No rows."""
        super().__init__()
        self._by_owner: dict[Any, dict[Key, Row]] = {}

    def of(self, user_id: str) -> dict[Key, Row]:
        """The rows of one owner, in the order in which they came."""
        return self._by_owner.get(user_id, {})

    def owners(self) -> set[str]:
        """Everybody who has rows."""
        return set(self._by_owner)

    def disown_all(self, user_id: str) -> None:
        """Remove the rows of one owner."""
        for key in self._by_owner.pop(user_id, {}):
            super().__delitem__(key)

    def __setitem__(self, key: Key, row: Row) -> None:
        self._disown(key)
        super().__setitem__(key, row)
        self._by_owner.setdefault(row.user_id, {})[key] = row

    def __delitem__(self, key: Key) -> None:
        self._disown(key)
        super().__delitem__(key)

    def pop(self, key: Key, default: Any = None) -> Any:
        """Remove the row, if it is there."""
        self._disown(key)
        return super().pop(key, default)

    def _disown(self, key: Key) -> None:
        row = self.get(key)
        if row is not None:
            rows = self._by_owner[row.user_id]
            del rows[key]
            if not rows:
                del self._by_owner[row.user_id]
