"""Units of work and shared data (notices, consents, cache) over both backends."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from shopassist.cache.ports import CacheEpochs
from shopassist.consent.models import ConsentNotice, PublishedNotice, UserConsent
from shopassist.consent.ports import ConsentRepository, NoticeRepository
from shopassist.credits.ports import GuestNetworks
from shopassist.errors import StorageUnavailableError
from shopassist.identity.caller import get_served_user
from shopassist.rollout.assignment import Side
from shopassist.rollout.placement import UserPlacement
from shopassist.rollout.routed_ports import sum_both
from shopassist.rollout.router import Changes, Router, always, never
from shopassist.storage import Repositories, TransactionBody, UnitOfWork

Result = TypeVar("Result")


class ConsentsOfBothBackends:
    """A `ConsentRepository` whose list has those of the other side as well."""

    def __init__(self, own: ConsentRepository, is_own: Callable[[str], bool], others: UnitOfWork) -> None:
        """Records that are not `own`, though they were left behind there, are read in `others`."""
        self._own = own
        self._is_own = is_own
        self._others = others

    async def get_consent(self, user_id: str) -> UserConsent | None:
        return await self._own.get_consent(user_id)

    async def create_consent(self, consent: UserConsent) -> UserConsent:
        return await self._own.create_consent(consent)

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None:
        return await self._own.update_consent(user_id, **updates)

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        others = await self._others.run(lambda work: work.consents.list_consents(limit, after_user_id))
        found = [record for record in others if not self._is_own(record.user_id)]
        after, left = after_user_id, limit
        while page := await self._own.list_consents(left, after):
            own = [record for record in page if self._is_own(record.user_id)]
            found += own
            after = page[-1].user_id
            if left is None or len(page) < left or len(own) == left:
                break
            left -= len(own)
        return sorted(found, key=lambda record: record.user_id)[:limit]


class CopyingNoticeRepository:
    """A `NoticeRepository` that remembers what is published."""

    def __init__(self, own: NoticeRepository) -> None:
        """`published` is what is to be copied, once it is committed."""
        self._own = own
        self.published: list[ConsentNotice] = []

    async def lock(self) -> None:
        await self._own.lock()

    async def insert_notice(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        stored = await self._own.insert_notice(notice, grace_hours)
        self.published.append(stored)
        return stored

    async def get_notice(self, notice_id: int) -> ConsentNotice | None:
        return await self._own.get_notice(notice_id)

    async def get_notices(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        return await self._own.get_notices(notice_ids)

    async def list_published(self) -> list[PublishedNotice]:
        return await self._own.list_published()


class ReadOnlyNoticeRepository:
    """A `NoticeRepository` of a copy: what is published goes to PostgreSQL alone, which gives it its number."""

    def __init__(self, copy: NoticeRepository, gone: StorageUnavailableError) -> None:
        """`gone` is raised where something is to be written."""
        self._copy = copy
        self._gone = gone

    async def lock(self) -> None:
        raise self._gone

    async def insert_notice(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:  # noqa: ARG002 - the port's
        raise self._gone

    async def get_notice(self, notice_id: int) -> ConsentNotice | None:
        return await self._copy.get_notice(notice_id)

    async def get_notices(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        return await self._copy.get_notices(notice_ids)

    async def list_published(self) -> list[PublishedNotice]:
        return await self._copy.list_published()


class RolloutCachedAnswers:
    """Implements `CachedAnswers`: of the side of whoever is served, and of memory, which has those of both."""

    def __init__(self, residence: UserPlacement) -> None:
        """`residence` knows where people are."""
        self._residence = residence

    async def find(self, query_hash: str) -> dict[str, Any] | None:
        served = get_served_user()
        place = self._residence.postgres if served is None else self._residence.place_of(served)
        return await place.cached_answers.find(query_hash) or await self._residence.memory.cached_answers.find(
            query_hash
        )


class RolloutCacheEpochs:
    """Implements `CacheEpochs`: PostgreSQL counts; clearing clears both sides."""

    def __init__(self, postgres: CacheEpochs, memory: UnitOfWork) -> None:
        """`memory` has a cache of its own."""
        self._postgres = postgres
        self._memory = memory

    async def current(self) -> int:
        return await self._postgres.current()

    async def advance(self) -> int:
        await self._memory.run(lambda work: work.cache.clear_cache())
        return await self._postgres.advance()


class RolloutGuestNetworks:
    """Implements `GuestNetworks`: each side counts the guests that begin there."""

    def __init__(self, memory: GuestNetworks, postgres: GuestNetworks) -> None:
        """The counters of both sides."""
        self._memory = memory
        self._postgres = postgres

    async def forget_old(self, limit: int = 1000) -> int:
        return await sum_both(self._memory.forget_old(limit), self._postgres.forget_old(limit))


@dataclass(frozen=True, slots=True)
class UserTransactions:
    """Implements `Transactions` about certain people."""

    routing: Router
    user_ids: tuple[str, ...]
    changes: Changes

    async def run(
        self,
        body: TransactionBody[Result],
        happened: TransactionBody[Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        return await self.routing.ask(
            self.user_ids,
            "unit_of_work",
            lambda place: place.unit_of_work.run(body, happened, repeatable),
            changes=self.changes,
        )


class RolloutUnitOfWork:
    """Implements `UnitOfWork`, and `ReplicaReads` where it `only_reads`."""

    def __init__(self, routing: Router, only_reads: bool = False) -> None:
        """`routing` knows where people are."""
        self._routing = routing
        self._changes = never if only_reads else always

    def about(self, *user_ids: str) -> UserTransactions:
        return UserTransactions(self._routing, user_ids, self._changes)

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one in PostgreSQL."""
        async with self._routing.residence.postgres.unit_of_work() as work:
            yield self._for_all(work)

    async def run(
        self,
        body: TransactionBody[Result],
        happened: TransactionBody[Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        residence = self._routing.residence
        served = get_served_user()
        if served is not None:
            return await residence.place_of(served).unit_of_work.run(body, happened, repeatable)
        published: list[ConsentNotice] = []

        async def for_all(work: Repositories) -> Result:
            found = self._for_all(work)
            notices = CopyingNoticeRepository(found.notices)
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
        return replace(self._with_all(work, Side.MEMORY), notices=ReadOnlyNoticeRepository(work.notices, gone))

    def _with_all(self, work: Repositories, own: Side) -> Repositories:
        residence = self._routing.residence
        is_own: Callable[[Any], bool] = lambda user_id: residence.side_of(user_id) is own  # noqa: E731
        others = residence.memory if own is Side.POSTGRES else residence.mirror
        return replace(work, consents=ConsentsOfBothBackends(work.consents, is_own, others.unit_of_work))
