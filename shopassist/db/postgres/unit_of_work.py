"""Short transactions over PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Repositories, RepositoryFactories
from shopassist.db.resilience.failures import translated


class PostgresUnitOfWork:
    """Implements `UnitOfWork`, READ COMMITTED."""

    def __init__(self, manager: DatabaseManager, repositories: RepositoryFactories[AsyncSession]) -> None:
        """Each unit has a session of its own."""
        self._manager = manager
        self._repositories = repositories

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one. Raises domain errors in place of the driver's."""
        with self._manager.resilience.breaker.guarded(), translated():
            async with self._manager.session() as session:
                yield self._repositories.within(session)
