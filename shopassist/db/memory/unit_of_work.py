"""Short transactions over memory."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from shopassist.db.memory.store import MemorySession, MemoryStore
from shopassist.db.ports import CacheRepository, CatalogRepository, ConsentRepository, CreditRepository, Repositories


class MemoryUnitOfWork:
    """Implements `UnitOfWork`; one at a time."""

    def __init__(
        self,
        store: MemoryStore,
        credits_in: Callable[[MemorySession], CreditRepository],
        consents_in: Callable[[MemorySession], ConsentRepository],
        cache_in: Callable[[MemorySession], CacheRepository],
        catalog_in: Callable[[MemorySession], CatalogRepository],
    ) -> None:
        """Each `…_in` builds a repository that speaks within the session it is given."""
        self._store = store
        self._credits_in = credits_in
        self._consents_in = consents_in
        self._cache_in = cache_in
        self._catalog_in = catalog_in

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one."""
        async with self._store.lock:
            session = MemorySession(self._store)
            try:
                yield Repositories(
                    credits=self._credits_in(session),
                    consents=self._consents_in(session),
                    cache=self._cache_in(session),
                    catalog=self._catalog_in(session),
                )
            except BaseException:
                session.rollback()
                raise
            session.commit()
