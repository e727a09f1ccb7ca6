"""Migrates users in the background: after a change of percentage, and after failed migrations."""

import asyncio
import gc
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from shopassist.errors import StorageUnavailableError
from shopassist.rollout.assignment import Side
from shopassist.rollout.placement import UnmovableError
from shopassist.rollout.router import Router

AT_ONCE = 8
"""People who are moved at the same time."""
BACK_AT_ONCE, BACK_PAUSE_SECONDS = 100, 0.01
"""People who go back before requests have their turn, and how long the next ones wait for them."""
BACK_SECONDS = 3.0
"""How long `all_back` waits for what is under way about somebody; the rest follow when it has ended."""
LOOK_SECONDS = 10.0
"""How often all people are looked through for one who was left behind, when nothing calls for it."""
MOVES_PER_COLLECTION = 1_000


def freeze_garbage_collection() -> None:
    """Let the garbage collector never look again at what is there now.

    Rows stay for as long as the process. A full collection that goes through those of 20,000 people stops everything
    for a second, and moving them brings on one after the other.
    """
    gc.collect(1)
    gc.freeze()


class BackgroundMigration:
    """Brings people to where the dial wants them."""

    def __init__(self, routing: Router) -> None:
        """It has nothing to do yet."""
        self._locks = routing.locks
        self._residence = routing.residence
        self._is_unfinished = False
        self._look_at = 0.0
        self._moves = 0

    def look(self) -> None:
        """Look through everybody at the next turn: the dial was turned."""
        self._is_unfinished = True

    async def all_back(self) -> None:
        """Bring everybody to memory, but for those about whom something is under way for long."""
        self.look()
        late: set[asyncio.Task[bool]] = set()
        people = iter(list(self._residence.in_postgres))
        while some := list(islice(people, BACK_AT_ONCE)):
            moving = [asyncio.create_task(self._moved(user_id)) for user_id in some]
            late |= (await asyncio.wait(moving, timeout=BACK_PAUSE_SECONDS))[1]
            self._note_moves(len(some))
        if late:
            _, later = await asyncio.wait(late, timeout=BACK_SECONDS)
            for task in later:
                task.cancel()

    async def move_misplaced(self) -> None:
        """Bring everybody to where they are wanted. Ends early where PostgreSQL is away."""
        now = time.monotonic()
        if not self._is_unfinished and now < self._look_at:
            return
        self._look_at, self._is_unfinished = now + LOOK_SECONDS, False
        misplaced = self.misplaced(await self._residence.memory.state.owners(2**31))
        while some := list(islice(misplaced, AT_ONCE)):
            if not all(await asyncio.gather(*map(self._moved, some))):
                self._is_unfinished = True
                if not self._residence.dial.is_back:
                    return
            self._note_moves(len(some))

    async def mirror_missing(self) -> None:
        """Bring the mirror up to date for those of whom it may lack something. Ends early where PostgreSQL is away."""
        for user_id in list(self._residence.unmirrored):
            async with self._locks.held(user_id):
                if user_id in self._residence.in_postgres:
                    await self._residence.mirror_again(user_id)
                    if user_id in self._residence.unmirrored:
                        return

    def misplaced(self, in_memory: Iterable[str]) -> Iterator[str]:
        """Who is to be moved, of all that are in PostgreSQL and of those `in_memory`."""
        dial, in_postgres = self._residence.dial, self._residence.in_postgres
        for user_id in list(in_postgres):
            if dial.wanted(user_id) is Side.MEMORY and not self._residence.pinned[user_id]:
                yield user_id
        for user_id in {*in_memory, *self._residence.unmirrored}:
            if dial.wanted(user_id) is Side.POSTGRES and user_id not in in_postgres:
                yield user_id

    def _note_moves(self, count: int) -> None:
        self._moves += count
        if self._moves >= MOVES_PER_COLLECTION:
            self._moves = 0
            freeze_garbage_collection()

    async def _moved(self, user_id: str) -> bool:
        """Move somebody to where they are wanted; whether the others can be tried, too."""
        async with self._locks.held(user_id):
            try:
                await self._residence.move(user_id, self._residence.dial.wanted(user_id))
            except UnmovableError:
                return True
            except StorageUnavailableError:
                return False
        return True
