"""Reads that may lag: from the replica while it is fit, else from the primary, and with that gone from the replica."""

from typing import Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.freshness import note_stale
from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Body, RepositoryFactories, UnitOfWork
from shopassist.db.postgres.unit_of_work import PostgresUnitOfWork
from shopassist.db.replica import Replica, State
from shopassist.db.resilience.failures import BusyError, UndoneError
from shopassist.db.resilience.policy import deadline_within
from shopassist.errors import StorageUnavailableError

Result = TypeVar("Result")


class PostgresLaggingReads:
    """Implements `LaggingReads`."""

    def __init__(
        self, unit_of_work: UnitOfWork, replica: Replica, repositories: RepositoryFactories[AsyncSession]
    ) -> None:
        """`unit_of_work` is the primary's."""
        self._unit_of_work = unit_of_work
        self._replica = replica
        self._repositories = repositories

    def about(self, *_: str) -> Self:
        return self

    async def run(self, body: Body[Result]) -> Result:
        replica = self._replica
        if replica.manager is None:
            return await self._unit_of_work.run(body, repeatable=True)
        tried = replica.state is State.FIT
        if tried:
            try:
                result = await self._at_replica(replica.manager, body)
            except Exception:  # noqa: BLE001 - whatever it was: what the primary says counts
                replica.figures.reads_by_primary += 1
            else:
                replica.figures.reads += 1
                return result
        else:
            replica.figures.reads_by_primary += 1
        try:
            return await self._unit_of_work.run(body, repeatable=True)
        except (BusyError, UndoneError):
            raise  # the primary is there
        except StorageUnavailableError as gone:
            if tried or replica.state is State.AWAY:
                raise
            return await self._stale(replica.manager, body, gone)

    async def _stale(self, manager: DatabaseManager, body: Body[Result], gone: StorageUnavailableError) -> Result:
        """However old it is: nobody else can answer."""
        as_of = self._replica.lag.as_of
        try:
            result = await self._at_replica(manager, body)
        except Exception:  # noqa: BLE001 - what keeps the service from answering is that the primary is gone
            raise gone from None
        self._replica.figures.stale_reads += 1
        note_stale(as_of)
        return result

    async def _at_replica(self, manager: DatabaseManager, body: Body[Result]) -> Result:
        with deadline_within(manager.resilience.limits.unit_seconds):
            return await PostgresUnitOfWork(manager, self._repositories).run(body, repeatable=True)
