"""Migrates users in the background: after a change of percentage, and after failed migrations."""

import asyncio
import gc
import time
from collections.abc import Iterable, Iterator
from itertools import islice

from shopassist.errors import StorageUnavailableError
from shopassist.rollout.placement import UnmovableError
from shopassist.rollout.router import Router
from shopassist.settings import Storage

CONCURRENT_MIGRATIONS = 8
BACK_BATCH_USERS, BACK_PAUSE_SECONDS = 100, 0.01
"""Users who are sent back at a time, and the pause after them, in which requests are served."""
BACK_SECONDS = 3.0
"""How long `migrate_all_back` waits for calls in progress; the users that they are about follow later."""
SCAN_SECONDS = 10.0
"""How often all users are checked when the percentage did not change."""
MIGRATIONS_PER_COLLECTION = 1_000


def freeze_garbage_collection() -> None:
    """Exempt all present objects from garbage collection.

    Rows stay for as long as the process. A full collection over those of 20,000 users stops the process for a second,
    and migrations cause one after the other.
    """
    gc.collect(1)
    gc.freeze()


class BackgroundMigration:
    """Migrates users to their assigned storage."""

    def __init__(self, router: Router) -> None:
        """Nothing is to be done yet."""
        self._locks = router.locks
        self._placement = router.placement
        self._is_unfinished = False
        self._next_scan = 0.0
        self._migrations = 0

    def request_scan(self) -> None:
        """Check all users at the next turn."""
        self._is_unfinished = True

    async def migrate_all_back(self) -> None:
        """Migrate all users to memory, except those of calls that take long."""
        self.request_scan()
        late: set[asyncio.Task[bool]] = set()
        users = iter(list(self._placement.in_postgres))
        while batch := list(islice(users, BACK_BATCH_USERS)):
            tasks = [asyncio.create_task(self._migrate(user_id)) for user_id in batch]
            late |= (await asyncio.wait(tasks, timeout=BACK_PAUSE_SECONDS))[1]
            self._count_migrations(len(batch))
        if late:
            _, later = await asyncio.wait(late, timeout=BACK_SECONDS)
            for task in later:
                task.cancel()

    async def migrate_misplaced(self) -> None:
        """Migrate all users who are not in their assigned storage, until PostgreSQL is found unavailable."""
        now = time.monotonic()
        if not self._is_unfinished and now < self._next_scan:
            return
        self._next_scan, self._is_unfinished = now + SCAN_SECONDS, False
        misplaced = self.find_misplaced(await self._placement.memory.rows.list_owners())
        while batch := list(islice(misplaced, CONCURRENT_MIGRATIONS)):
            if not all(await asyncio.gather(*map(self._migrate, batch))):
                self._is_unfinished = True
                if not self._placement.assignment.is_back:
                    return
            self._count_migrations(len(batch))

    async def refresh_mirrors(self) -> None:
        """Refresh the mirror of all users of whom it may lack a change, until PostgreSQL is found unavailable."""
        for user_id in list(self._placement.unmirrored):
            async with self._locks.hold(user_id):
                if user_id in self._placement.in_postgres:
                    await self._placement.refresh_mirror(user_id)
                    if user_id in self._placement.unmirrored:
                        return

    def find_misplaced(self, users_in_memory: Iterable[str]) -> Iterator[str]:
        """Yield the users to migrate, of those in PostgreSQL and those in memory."""
        assignment, in_postgres = self._placement.assignment, self._placement.in_postgres
        for user_id in list(in_postgres):
            if assignment.get_storage(user_id) is Storage.MEMORY and not self._placement.pinned[user_id]:
                yield user_id
        for user_id in {*users_in_memory, *self._placement.unmirrored}:
            if assignment.get_storage(user_id) is Storage.POSTGRES and user_id not in in_postgres:
                yield user_id

    def _count_migrations(self, count: int) -> None:
        self._migrations += count
        if self._migrations >= MIGRATIONS_PER_COLLECTION:
            self._migrations = 0
            freeze_garbage_collection()

    async def _migrate(self, user_id: str) -> bool:
        """Migrate a user to the assigned storage; return False when PostgreSQL is unavailable."""
        async with self._locks.hold(user_id):
            try:
                await self._placement.migrate(user_id, self._placement.assignment.get_storage(user_id))
            except UnmovableError:
                return True
            except StorageUnavailableError:
                return False
        return True
