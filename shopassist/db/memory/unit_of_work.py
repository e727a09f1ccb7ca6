"""Short transactions over memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from shopassist.db.memory.store import MemorySession, MemoryStore
from shopassist.db.ports import Body, Repositories, RepositoryFactories, Result


class MemoryUnitOfWork:
    """Implements `UnitOfWork`; one at a time."""

    def __init__(self, store: MemoryStore, repositories: RepositoryFactories[MemorySession]) -> None:
        """Each unit has a session of its own."""
        self._store = store
        self._repositories = repositories

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one."""
        async with self._store.lock:
            session = MemorySession(self._store)
            try:
                yield self._repositories.within(session)
            except BaseException:
                session.rollback()
                raise
            session.commit()

    def about(self, *_: str) -> Self:
        """All people are in one place."""
        return self

    async def run(self, body: Body[Result], *_: object, **__: object) -> Result:
        """Run `body` in one; there is no failure after which it would have to be run again."""
        async with self() as work:
            return await body(work)
