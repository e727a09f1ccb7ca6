"""Short transactions over PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import CacheRepository, CatalogRepository, ConsentRepository, CreditRepository, Repositories
from shopassist.db.resilience import translated


class PostgresUnitOfWork:
    """Implements `UnitOfWork`, READ COMMITTED."""

    def __init__(
        self,
        manager: DatabaseManager,
        credits_in: Callable[[AsyncSession], CreditRepository],
        consents_in: Callable[[AsyncSession], ConsentRepository],
        cache_in: Callable[[AsyncSession], CacheRepository],
        catalog_in: Callable[[AsyncSession], CatalogRepository],
    ) -> None:
        """Each `…_in` builds a repository that speaks within the session it is given."""
        self._manager = manager
        self._credits_in = credits_in
        self._consents_in = consents_in
        self._cache_in = cache_in
        self._catalog_in = catalog_in

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one. Raises domain errors in place of the driver's."""
        with translated():
            async with self._manager.get_session() as session, session.begin():
                yield Repositories(
                    credits=self._credits_in(session),
                    consents=self._consents_in(session),
                    cache=self._cache_in(session),
                    catalog=self._catalog_in(session),
                )
