"""Routes each call to the storage of its users, one call at a time per user, and compares the two storages."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from pydantic import BaseModel

from shopassist.errors import StorageUnavailableError
from shopassist.rollout.placement import AnyBackend, UserPlacement
from shopassist.settings import Storage

logger = structlog.get_logger(__name__)

SHADOW_SECONDS = 0.5
"""Time limit of repeating a call on the other storage, during which further calls about the user wait."""

IGNORED_FIELDS = frozenset({"id", "answered"})
"""Fields that may differ between storages, as may instants and UUIDs."""

BackendCall = Callable[[Any], Awaitable[Any]]
"""A call on a backend; it may be repeated on another one."""

UNAVAILABLE_ERRORS = (StorageUnavailableError, TimeoutError, OSError)


def normalise_result(value: Any) -> Any:
    """Return a result without what may differ between storages."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {key: normalise_result(one) for key, one in value.items() if key not in IGNORED_FIELDS}
    if isinstance(value, list | tuple):
        return [normalise_result(one) for one in value]
    return None if isinstance(value, datetime | UUID) else value


@dataclass(frozen=True, slots=True)
class CallResult:
    """The value that a call returned, or the error that it raised."""

    value: Any = None
    error: BaseException | None = None

    @property
    def is_known(self) -> bool:
        """Whether the storage answered, by a value or an error of the domain."""
        return not isinstance(self.error, (*UNAVAILABLE_ERRORS, asyncio.CancelledError))

    def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value

    def differs(self, other: "CallResult") -> bool:
        """Return whether two storages gave different results."""
        return (type(self.error), normalise_result(self.value)) != (type(other.error), normalise_result(other.value))


async def run_call(call: BackendCall, backend: Any) -> CallResult:
    """Return the result of a call on a backend."""
    try:
        return CallResult(await call(backend))
    except Exception as error:  # noqa: BLE001 - it is raised or compared later
        return CallResult(error=error)


class Router:
    """Runs calls where their users are.

    Comparing and mirroring follow in the background, before the next call about the same user.
    """

    def __init__(self, placement: UserPlacement) -> None:
        """Migrate users by `placement`."""
        self.placement = placement
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._follow_ups: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def hold(self, *user_ids: str) -> AsyncIterator[None]:
        """Hold the locks of those users for the length of the block."""
        async with AsyncExitStack() as held:
            for user_id in sorted(set(user_ids)):  # always in this order, so that there is no deadlock
                await held.enter_async_context(self._locks.setdefault(user_id, asyncio.Lock()))
            yield

    async def run(
        self,
        user_ids: Sequence[str],
        operation: str,
        call: BackendCall,
        writes: Callable[[Any], bool] | bool = True,
        to: Storage | None = None,
        is_compared: bool = True,
    ) -> Any:
        """Migrate the users to the storage `to`, or to the assigned one if possible; return what `call` returns there.

        `operation` is its name in metrics. `writes` tells, by the result, whether rows may have changed; a call that is
        not `is_compared` is never repeated. Raises what `call` raises, and `StorageUnavailableError`.
        """
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.hold(*user_ids))
            result = CallResult(error=asyncio.CancelledError())
            try:
                result = await run_call(call, await self.placement.place_users(user_ids, to))
            finally:
                storage = self._count(user_ids, operation, result)
                # A call that failed or was cancelled may have written.
                has_changed = result.error is not None or (writes(result.value) if callable(writes) else writes)
                shadowed = self.placement.assignment.is_shadowing and not self.placement.assignment.is_back
                if shadowed or (storage is Storage.POSTGRES and has_changed):
                    compared = result if is_compared and result.is_known else None
                    self._start_follow_up(
                        held.pop_all(),
                        self._mirror(user_ids, operation, call, compared if shadowed else None, has_changed)
                        if storage is Storage.POSTGRES
                        else self._shadow(user_ids, operation, call, compared),
                    )
        return result.get()

    async def close(self) -> None:
        """Wait for the follow-ups."""
        while self._follow_ups:
            await asyncio.gather(*self._follow_ups, return_exceptions=True)

    def _count(self, user_ids: Sequence[str], operation: str, result: CallResult) -> Storage:
        storage = self.placement.get_storage(user_ids[-1])
        self.placement.counters.asked[storage] += 1
        if isinstance(result.error, UNAVAILABLE_ERRORS):
            self.placement.counters.failed[storage] += 1
            logger.debug("rollout_unavailable", operation=operation)
        return storage

    def _start_follow_up(self, held: AsyncExitStack, work: Awaitable[None]) -> None:
        """Do `work` in a task that releases the locks."""

        async def follow_up() -> None:
            async with held:
                await work

        # An empty context: the deadline of the request does not apply.
        task = asyncio.get_running_loop().create_task(follow_up(), context=Context())
        self._follow_ups.add(task)
        task.add_done_callback(self._follow_ups.discard)

    async def _mirror(
        self, user_ids: Sequence[str], operation: str, call: BackendCall, result: CallResult | None, has_changed: bool
    ) -> None:
        """Compare a result of PostgreSQL with the mirror's, and bring the mirror up to date."""
        if result is not None:
            await self._compare(operation, call, result, self.placement.mirror)
        for user_id in user_ids if has_changed else ():
            await self.placement.refresh_mirror(user_id)

    async def _shadow(
        self, user_ids: Sequence[str], operation: str, call: BackendCall, result: CallResult | None
    ) -> None:
        """Compare a result of memory with PostgreSQL's; replace the copy there when it differs or is not exact."""
        placement = self.placement
        try:
            async with asyncio.timeout(SHADOW_SECONDS):
                if result is None or not placement.shadowed.issuperset(user_ids):
                    is_equal = False
                else:
                    is_equal = await self._compare(operation, call, result, placement.postgres)
                for user_id in () if is_equal else user_ids:
                    await placement.refresh_shadow(user_id)
        except (StorageUnavailableError, TimeoutError):
            placement.shadowed.difference_update(user_ids)
            placement.counters.shadow_failures += 1

    async def _compare(self, operation: str, call: BackendCall, result: CallResult, other: AnyBackend) -> bool:
        """Return whether the other storage gives the same result. Raises `StorageUnavailableError` if it gives none."""
        repeated = await run_call(call, other)
        if not repeated.is_known:
            raise StorageUnavailableError
        self.placement.counters.compared[operation] += 1
        if not result.differs(repeated):
            return True
        self.placement.counters.differences[operation] += 1
        logger.warning("rollout_difference", operation=operation)
        return False
