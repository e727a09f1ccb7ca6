"""Short transactions: where somebody is, or, about nobody, in PostgreSQL, and in memory when that is gone."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shopassist.db.ports import Body, Repositories
from shopassist.db.rollout.asker import asker
from shopassist.db.rollout.dial import Side
from shopassist.db.rollout.routing import Changes, Routing, always, never
from shopassist.db.rollout.shared import ConsentsOfAll, NoticesToCopy, NoticesToRead
from shopassist.errors import StorageUnavailableError
from shopassist.models import ConsentNotice

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PersonalTransactions:
    """Implements `Transactions` about certain people."""

    routing: Routing
    user_ids: tuple[str, ...]
    changes: Changes

    async def run(
        self, body: Body[Result], happened: Body[Result | None] | None = None, repeatable: bool = False
    ) -> Result:
        return await self.routing.ask(
            self.user_ids,
            "unit_of_work",
            lambda place: place.unit_of_work.run(body, happened, repeatable),
            changes=self.changes,
        )


class RolloutUnitOfWork:
    """Implements `UnitOfWork`, and `LaggingReads` where it `only_reads`."""

    def __init__(self, routing: Routing, only_reads: bool = False) -> None:
        """`routing` knows where people are."""
        self._routing = routing
        self._changes = never if only_reads else always

    def about(self, *user_ids: str) -> PersonalTransactions:
        return PersonalTransactions(self._routing, user_ids, self._changes)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one in PostgreSQL."""
        async with self._routing.residence.postgres.unit_of_work() as work:
            yield self._for_all(work)

    async def run(
        self, body: Body[Result], happened: Body[Result | None] | None = None, repeatable: bool = False
    ) -> Result:
        residence = self._routing.residence
        served = asker()
        if served is not None:
            return await residence.place_of(served).unit_of_work.run(body, happened, repeatable)
        published: list[ConsentNotice] = []

        async def for_all(work: Repositories) -> Result:
            found = self._for_all(work)
            notices = NoticesToCopy(found.notices)
            result = await body(replace(found, notices=notices))
            published[:] = notices.published
            return result

        try:
            result = await residence.postgres.unit_of_work.run(for_all, happened, repeatable)
        except StorageUnavailableError as error:
            gone = error
            return await residence.memory.unit_of_work.run(lambda work: body(self._without(work, gone)))
        await residence.know_notices(published)
        return result

    def _for_all(self, work: Repositories) -> Repositories:
        return self._with_all(work, Side.POSTGRES)

    def _without(self, work: Repositories, gone: StorageUnavailableError) -> Repositories:
        return replace(self._with_all(work, Side.MEMORY), notices=NoticesToRead(work.notices, gone))

    def _with_all(self, work: Repositories, own: Side) -> Repositories:
        residence = self._routing.residence
        is_own: Callable[[Any], bool] = lambda user_id: residence.side_of(user_id) is own  # noqa: E731
        others = residence.memory if own is Side.POSTGRES else residence.mirror
        return replace(work, consents=ConsentsOfAll(work.consents, is_own, others.unit_of_work))
