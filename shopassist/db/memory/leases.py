"""Leases in memory: this process is the only one there is."""

from datetime import timedelta

from shopassist.db.memory.store import MemoryStore


class MemoryLeases:
    """Implements `Leases`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock decides."""
        self._store = store

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        now = self._store.now()
        current, expires_at = self._store.leases.get(name, (holder, now))
        if current != holder and expires_at > now:
            return False
        self._store.leases[name] = (holder, now + lifetime)
        return True

    async def release(self, name: str, holder: str) -> None:
        if self._store.leases.get(name, ("", None))[0] == holder:
            del self._store.leases[name]

    async def holder(self, name: str) -> str | None:
        holder, expires_at = self._store.leases.get(name, (None, self._store.now()))
        return holder if expires_at > self._store.now() else None
