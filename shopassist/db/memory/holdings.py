"""What is held of people, read and changed in memory by what the list of holdings says of each table."""

from typing import Any

from shopassist.db.memory.repository import copied
from shopassist.db.memory.store import MemorySession, MemoryStore
from shopassist.db.privacy import HeldPage, Key, Trace
from shopassist.models.holdings import Holding, OnErasure


def owner_of(holding: Holding, row: Any) -> Any:
    """Whose a row is."""
    column, *inside = holding.owner
    owner = getattr(row, column)
    return owner.get(inside[0]) if inside else owner


def key_of(holding: Holding, row: Any) -> Key:
    """Its primary key."""
    return tuple(getattr(row, name) for name in holding.key)


def mine(store: MemoryStore, holding: Holding, user_id: str, is_guest: bool) -> list[tuple[Any, Any]]:
    """The rows of that user with their places, by primary key."""
    found = [
        (place, row)
        for place, row in store.rows(holding.table).items()
        if owner_of(holding, row) == user_id and (not holding.kind or getattr(row, holding.kind) == is_guest)
    ]
    return sorted(found, key=lambda item: key_of(holding, item[1]))


def erase(store: MemoryStore, holding: Holding, user_id: str, is_guest: bool, pseudonym: str, limit: int) -> int:
    """Erase up to `limit` rows by the holding's own rule; how many."""
    rows, chosen = store.rows(holding.table), mine(store, holding, user_id, is_guest)[:limit]
    for place, row in chosen:
        if holding.on_erasure in {OnErasure.DELETE, OnErasure.WITH_ACCOUNT}:
            del rows[place]
        else:
            owner = None if holding.on_erasure is OnErasure.DISOWN else pseudonym
            rows[place] = copied(row, **{holding.owner[0]: owner, **dict.fromkeys(holding.cleared)})
    return len(chosen)


def move(session: MemorySession, holding: Holding, guest_id: str, user_id: str) -> int:
    """Make a guest's rows the user's, but those whose key the user has already; how many."""
    rows, moved = session.store.rows(holding.table), 0
    for place, row in mine(session.store, holding, guest_id, is_guest=True):
        changed = copied(row, **{holding.owner[0]: user_id, **({holding.kind: False} if holding.kind else {})})
        key = key_of(holding, changed)
        new_place = place if holding.owner[0] not in holding.key else (key if len(key) > 1 else key[0])
        if new_place == place or new_place not in rows:
            session.remove(rows, place)
            session.put(rows, new_place, changed)
            moved += 1
    return moved


class MemoryHoldings:
    """Implements `Holdings`."""

    def __init__(self, store: MemoryStore) -> None:
        """Reads `store`."""
        self._store = store

    async def page(
        self, holding: Holding, user_id: str, is_guest: bool, limit: int, after: Key | None = None
    ) -> HeldPage:
        async with self._store.lock:
            rows = [row for _, row in mine(self._store, holding, user_id, is_guest)]
            page = [row for row in rows if after is None or key_of(holding, row) > after][:limit]
            last = key_of(holding, page[-1]) if len(page) == limit else None
            return HeldPage([{name: getattr(row, name) for name in holding.exported} for row in page], last)

    async def traces(self, holding: Holding, limit: int, after_user_id: str = "") -> list[Trace]:
        async with self._store.lock:
            oldest: dict[str, Trace] = {}
            for row in self._store.rows(holding.table).values():
                owner, since = owner_of(holding, row), getattr(row, holding.since or "")
                if owner > after_user_id and (owner not in oldest or since < oldest[owner].since):
                    oldest[owner] = Trace(owner, getattr(row, holding.kind) if holding.kind else None, since)
            return [oldest[owner] for owner in sorted(oldest)][:limit]
