"""One lock a person: what is asked about somebody happens one after the other, moves included."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Locks:
    """Locks by user id, for as long as somebody has or wants them."""

    def __init__(self) -> None:
        """None is taken."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, *user_ids: str) -> AsyncIterator[None]:
        """Nothing else happens to those people for the length of the block."""
        taken = await self.taken(user_ids)
        try:
            yield
        finally:
            taken.release()

    async def taken(self, user_ids: Sequence[str]) -> "Taken":
        """The locks of those people, which whoever has them releases."""
        taken = Taken()
        try:
            for user_id in sorted(set(user_ids)):  # the same order for everybody, so that nobody waits in a circle
                lock = self._locks.setdefault(user_id, asyncio.Lock())
                await lock.acquire()
                taken.locks.append(lock)
        except BaseException:
            taken.release()
            raise
        return taken


class Taken:
    """Locks that somebody has."""

    def __init__(self) -> None:
        """None yet."""
        self.locks: list[asyncio.Lock] = []

    def release(self) -> None:
        """Let the next one in."""
        while self.locks:
            self.locks.pop().release()
