"""Unit of work over both storages: the first repository call of a body names its users."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, NoReturn

from shopassist.consent.models import UserConsent
from shopassist.db.ports import Result, TransactionBody
from shopassist.errors import StorageUnavailableError
from shopassist.rollout.placement import AnyBackend
from shopassist.rollout.routed_ports import REPOSITORY_USERS, no_user
from shopassist.rollout.router import Router
from shopassist.settings import Storage
from shopassist.storage.repositories import Repositories


class FirstCall(BaseException):
    """Ends a body at its first repository call."""

    def __init__(self, repository: str, method: str, user_ids: tuple[str, ...]) -> None:
        """Describe the call, which is about `user_ids`."""
        self.repository, self.method, self.user_ids = repository, method, user_ids


def stop_at_call(repository: str, method: str, *args: object, **kwargs: object) -> NoReturn:
    """Raise `FirstCall` in place of a repository's method."""
    raise FirstCall(repository, method, REPOSITORY_USERS[repository][method](*args, **kwargs))


RECORDER: Any = SimpleNamespace(
    **{
        repository: SimpleNamespace(**{method: partial(stop_at_call, repository, method) for method in methods})
        for repository, methods in REPOSITORY_USERS.items()
    }
)
"""Repositories with methods that raise `FirstCall`."""


async def find_first_call(body: Callable[[Any], Any]) -> FirstCall:
    """Return the first repository call of a body, without making it."""
    try:
        await body(RECORDER)
    except FirstCall as call:
        return call
    raise TypeError("The body of a unit of work must call a repository.")


def refuse_late_user(*_: object, **__: object) -> NoReturn:
    """Raise in place of a call about a user in a unit of work that began with another call."""
    raise TypeError("The first repository call of a unit of work must name its users.")


REFUSED_CALLS = {
    repository: dict.fromkeys((method for method, users in methods.items() if users is not no_user), refuse_late_user)
    for repository, methods in REPOSITORY_USERS.items()
}
"""The calls that a unit of work without users must not make: they could be made in the wrong storage."""


class Overlay:
    """An object with some of its attributes replaced."""

    def __init__(self, base: object, **replaced: object) -> None:
        """Take the attributes that are not `replaced` from `base`."""
        self._base = base
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


class RoutedUnitOfWork:
    """Implements `UnitOfWork`, and `ReplicaReads` with `writes=False`."""

    def __init__(self, router: Router, writes: bool = True) -> None:
        """With `writes`, the rows of a user may change."""
        self._router = router
        self._placement = router.placement
        self._writes = writes

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Repositories]:
        """Begin one in PostgreSQL."""
        async with self._placement.postgres.get("unit_of_work")() as work:
            yield work

    async def run(
        self,
        body: TransactionBody[Repositories, Result],
        happened: TransactionBody[Repositories, Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        first = await find_first_call(body)

        async def run_on(backend: AnyBackend, body: TransactionBody[Repositories, Result] = body) -> Result:
            result: Result = await backend.get("unit_of_work").run(body, happened, repeatable)
            return result

        if first.user_ids:
            found: Result = await self._router.run(first.user_ids, "unit_of_work", run_on, self._writes)
            return found
        memory, postgres = self._placement.memory, self._placement.postgres
        is_catalog_read = first.repository == "catalog" and first.method != "upsert"
        if is_catalog_read and not self._placement.assignment.uses_postgres:
            return await run_on(memory)
        is_publication = (first.repository, first.method) == ("notices", "lock")
        try:
            result = await run_on(postgres, lambda work: body(self._share(work, Storage.POSTGRES)))
        except StorageUnavailableError:
            if is_publication:
                raise
            return await run_on(memory, lambda work: body(self._share(work, Storage.MEMORY)))
        if is_publication:
            with suppress(StorageUnavailableError):  # it is repeated in the background
                await self._placement.copy_notices()
        return result

    def _share(self, work: Repositories, storage: Storage) -> Any:
        """Return the repositories of `storage` without calls about users and with all consents in the list."""
        listed = partial(self._list_consents, work.consents.list_consents, storage)
        replaced = {name: Overlay(getattr(work, name), **calls) for name, calls in REFUSED_CALLS.items() if calls}
        return work.replace(**replaced | {"consents": Overlay(replaced["consents"], list_consents=listed)})

    async def _list_consents(
        self, list_own: Callable[..., Any], storage: Storage, limit: int | None = None, after_user_id: str | None = None
    ) -> list[UserConsent]:
        """Return the records of both storages, each from the one that holds the user: old rows may be in the other."""
        placement = self._placement
        other = placement.memory if storage is Storage.POSTGRES else placement.mirror
        others = await other.get("unit_of_work").run(lambda work: work.consents.list_consents(limit, after_user_id))
        found = [record for record in others if placement.get_storage(record.user_id) is not storage]
        after, left = after_user_id, limit
        while page := await list_own(left, after):
            own = [record for record in page if placement.get_storage(record.user_id) is storage]
            found += own
            after = page[-1].user_id
            if left is None or len(page) < left or len(own) == left:
                break
            left -= len(own)
        return sorted(found, key=lambda record: record.user_id)[:limit]
