"""Unit of work over PostgreSQL: short READ COMMITTED transactions, retried where that is safe."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic

from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.database import DatabaseManager
from shopassist.db.failures import ConnectionLostError, translate_errors
from shopassist.db.ports import Repositories, Result, TransactionBody


class PostgresUnitOfWork(Generic[Repositories]):
    """Implements `UnitOfWork`, READ COMMITTED."""

    def __init__(self, manager: DatabaseManager, repositories: Callable[[AsyncSession], Repositories]) -> None:
        """Each unit has a session of its own."""
        self._manager = manager
        self._repositories = repositories

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one. Raises domain errors in place of the driver's."""
        with self._manager.resilience.breaker.guarded(), translate_errors():
            async with self._begun() as work:
                yield work

    async def run(
        self,
        body: TransactionBody[Repositories, Result],
        happened: TransactionBody[Repositories, Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        """Run `body` in one, by the policy for failures. Raises domain errors in place of the driver's."""
        policy = self._manager.resilience
        try:
            return await policy.run(lambda: self._once(body), repeatable)
        except ConnectionLostError:
            if happened is None:
                raise
        found = await policy.run(lambda: self._once(happened), repeatable=True)
        return await policy.run(lambda: self._once(body)) if found is None else found

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[Repositories]:
        async with self._manager.session() as session:
            yield self._repositories(session)

    async def _once(self, body: TransactionBody[Repositories, Result]) -> Result:
        async with self._begun() as work:
            return await body(work)
