"""Knows the storage of each user, migrates users, and runs each call in the storage of its users."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import Context
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import structlog
from pydantic import BaseModel

from shopassist.audit.models import AdminAct
from shopassist.credits.models import ErasedBalance, Erasure
from shopassist.db.memory import copy_row
from shopassist.db.resilience import limit_time
from shopassist.errors import StorageUnavailableError
from shopassist.rollout.models import Assignment
from shopassist.rollout.rows import MemoryUserRows, PostgresUserRows, Rows
from shopassist.settings import Storage

logger = structlog.get_logger(__name__)

MIGRATION_SECONDS, SECONDS_PER_ROW = 1.0, 0.0003  # time limit of a migration; calls about the user wait meanwhile
READ_SECONDS = 4.0  # time limit of reading the rows of a user
RETRY_PAUSE_SECONDS = 5.0  # no call waits for another migration to PostgreSQL so soon after a failed one
SHADOW_SECONDS = 0.5  # time limit of repeating a call on PostgreSQL; further calls about the user wait meanwhile

IGNORED_FIELDS = frozenset({"id", "answered"})
"""Fields that may differ between storages, as may instants and UUIDs."""

UNAVAILABLE_ERRORS = (StorageUnavailableError, TimeoutError, OSError)

CallResult = tuple[Any, BaseException | None]
"""What a call returned, and the error that it raised."""

StorageCall = Callable[[Any], Awaitable[Any]]
"""A call on a storage container; it may be repeated on the other one."""


class UnmovableError(StorageUnavailableError):
    """PostgreSQL does not accept the rows of one user; other users can be migrated."""


class UserPlacement:
    """Maps each user to a storage. Callers of its coroutines about a user hold that user's lock.

    Memory also has a copy of the rows of each user in PostgreSQL, the mirror.
    """

    def __init__(self, assignment: Assignment, memory: Any, postgres: Any) -> None:
        """Place users in two storage containers, `memory` and `postgres`."""
        self.assignment = assignment
        self.memory, self.postgres = memory, postgres
        self.memory_rows = MemoryUserRows(memory.memory_store())
        self.postgres_rows = PostgresUserRows(postgres.database_manager())
        self.counts = Counter[tuple[str, str]]()
        """Calls, migrations and comparisons by name, and by storage or operation."""
        self.in_postgres: set[str] = set()
        self.copied: set[str] = set()
        """Users with an exact copy of their rows in the other storage."""
        self.unmirrored: dict[str, datetime] = {}
        """Users with a last change in PostgreSQL that the mirror may lack, and since when."""
        self.erasures: dict[UUID, tuple[str, ...]] = {}
        """Unfinished erasures and the users who stay in PostgreSQL until their end; the last one is erased."""
        self._no_migration_until = 0.0

    def get_storage(self, user_id: str) -> Storage:
        """Return where the rows of a user are."""
        return Storage.POSTGRES if user_id in self.in_postgres else Storage.MEMORY

    def get_container(self, user_id: str) -> Any:
        """Return the container of the storage that holds the rows of a user."""
        return self.postgres if user_id in self.in_postgres else self.memory

    def is_pinned(self, user_id: str) -> bool:
        """Return whether a user stays in PostgreSQL because of an erasure."""
        return any(user_id in user_ids for user_ids in self.erasures.values())

    async def place_users(self, user_ids: Sequence[str], to: Storage | None = None) -> Any:
        """Migrate users to one storage and return its container: `to`, or the assigned one of the last user.

        A user who cannot be migrated stays. Raises `StorageUnavailableError` when the users are not together then, or
        not where `to` says.
        """
        target = to or self.assignment.get_storage(user_ids[-1])
        try:
            for user_id in user_ids:
                await self.migrate(user_id, target)
        except StorageUnavailableError:
            if to or len({self.get_storage(user_id) for user_id in user_ids}) > 1:
                raise
        return self.get_container(user_ids[-1])

    async def migrate(self, user_id: str, to: Storage) -> None:
        """Migrate the rows of a user, unless they are there or an erasure needs them.

        Raises `StorageUnavailableError` when PostgreSQL is unavailable, and `UnmovableError` when it refuses the rows.
        """
        if self.get_storage(user_id) is to or self.is_pinned(user_id):
            return
        try:
            await (self._to_postgres(user_id) if to is Storage.POSTGRES else self._to_memory(user_id))
        except Exception as error:
            self.counts["move_failures", to] += 1
            if isinstance(error, StorageUnavailableError):
                raise
            logger.warning("not_moved", side=to, error=type(error).__name__)
            raise UnmovableError from error
        self.counts["moves", to] += self.memory_rows.has_rows(user_id)

    async def adopt(self, user_id: str, rows: Rows) -> None:
        """Copy the rows of a user in PostgreSQL to the mirror."""
        await self.memory_rows.write(user_id, rows)
        self.unmirrored.pop(user_id, None)
        self.in_postgres.add(user_id)
        if rows:  # a call that creates an account is not repeated: it counts the network's guests
            self.copied.add(user_id)

    async def refresh_copy(self, user_id: str) -> None:
        """Copy the rows of a user to the other storage.

        Raises `StorageUnavailableError` when PostgreSQL does not take them. When it cannot be read, record that the
        mirror may lack a change.
        """
        self.copied.discard(user_id)
        if user_id not in self.in_postgres:
            await self._copy_to_postgres(user_id, await _read(self.memory_rows, user_id))
            return
        try:
            rows = await _read(self.postgres_rows, user_id)
        except Exception as error:  # noqa: BLE001 - after any failure the copy may be outdated
            self.unmirrored.setdefault(user_id, datetime.now(UTC))
            logger.warning("not_mirrored", error=type(error).__name__)
        else:
            await self.adopt(user_id, rows)

    async def sync_erasures(self, **of_user: str) -> None:
        """Copy erasures from PostgreSQL to memory, without names. Raises `StorageUnavailableError`."""
        erasures = await self.postgres_rows.select(Erasure, **of_user)
        await self.memory_rows.put(copy_row(row, user_id=None, pseudonym=None) for row in erasures)
        await self.memory_rows.put(await self.postgres_rows.select(ErasedBalance, **of_user))

    async def forget_erased(self, erasure_id: UUID) -> None:
        """Release the users of a finished erasure and remove what memory has of the last one, who was erased."""
        user_ids = self.erasures.pop(erasure_id, ())
        for user_id in user_ids:
            await self.refresh_copy(user_id)
        for user_id in user_ids[-1:]:
            await self.memory_rows.anonymise_merges(user_id)

    async def flush_audit_entries(self) -> None:
        """Move audit entries from memory to PostgreSQL. Raises `StorageUnavailableError`."""
        stored = self.memory_rows.store.table(AdminAct)
        entries = dict(stored)
        stored.clear()
        try:
            if entries:
                await self.postgres_rows.insert(AdminAct, entries.values())
        except BaseException:
            stored.update(entries)
            raise

    async def copy_notices(self) -> None:
        """Copy new notices from PostgreSQL to memory. Raises `StorageUnavailableError`."""
        known = {notice.id for notice in await self.memory.consent_lookup().list_published()}

        async def read_new(work: Any) -> Any:
            new = [notice.id for notice in await work.notices.list_published() if notice.id not in known]
            return await work.notices.get_notices(new) if new else []

        await self.memory_rows.put(await self.postgres.unit_of_work().run(read_new, repeatable=True))

    async def _to_postgres(self, user_id: str) -> None:
        if rows := await _read(self.memory_rows, user_id):
            if time.monotonic() < self._no_migration_until:
                raise StorageUnavailableError
            try:
                await self._copy_to_postgres(user_id, rows)
            except StorageUnavailableError:
                self._no_migration_until = time.monotonic() + RETRY_PAUSE_SECONDS
                raise
        self.unmirrored.pop(user_id, None)  # the rows in memory replaced those in PostgreSQL
        self.in_postgres.add(user_id)

    async def _copy_to_postgres(self, user_id: str, rows: Rows) -> None:
        with limit_time(MIGRATION_SECONDS + SECONDS_PER_ROW * sum(map(len, rows.values()))):
            await self.postgres_rows.write(user_id, rows)
        if rows:  # see `adopt`
            self.copied.add(user_id)

    async def _to_memory(self, user_id: str) -> None:
        if not self.assignment.is_back:
            try:
                with limit_time(READ_SECONDS):
                    await self.adopt(user_id, await _read(self.postgres_rows, user_id))
            except StorageUnavailableError:
                if user_id in self.unmirrored:
                    raise
        self.in_postgres.discard(user_id)
        self.copied.discard(user_id)


async def _read(rows: MemoryUserRows | PostgresUserRows, user_id: str) -> Rows:
    return (await rows.read([user_id])).get(user_id, {})


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


def is_known(result: CallResult) -> bool:
    """Return whether the storage answered, by a value or an error of the domain."""
    return not isinstance(result[1], (*UNAVAILABLE_ERRORS, asyncio.CancelledError))


def is_equal(result: CallResult, other: CallResult) -> bool:
    """Return whether two storages gave the same result."""
    return (normalise_result(result[0]), type(result[1])) == (normalise_result(other[0]), type(other[1]))


async def run_call(call: StorageCall, storage: Any) -> CallResult:
    """Return the result of a call on a storage."""
    try:
        return await call(storage), None
    except Exception as error:  # noqa: BLE001 - it is raised or compared later
        return None, error


class Router:
    """Runs calls where their users are.

    Comparing and copying follow in the background, before the next call about the same user.
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
        call: StorageCall,
        writes: Callable[[Any], bool] | bool = True,
        to: Storage | None = None,
        is_compared: bool = True,
    ) -> Any:
        """Migrate the users to the storage `to`, or to the assigned one if possible; return what `call` returns there.

        `operation` is its name in metrics. `writes` tells, by the result, whether rows may have changed; a call that is
        not `is_compared` is never repeated. Raises what `call` raises, and `StorageUnavailableError`.
        """
        placement = self.placement
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.hold(*user_ids))
            result: CallResult = None, asyncio.CancelledError()
            try:
                result = await run_call(call, await placement.place_users(user_ids, to))
            finally:
                value, error = result
                storage = placement.get_storage(user_ids[-1])
                placement.counts["asked", storage] += 1
                if isinstance(error, UNAVAILABLE_ERRORS):
                    placement.counts["failed", storage] += 1
                    logger.debug("rollout_unavailable", operation=operation)
                # A call that failed or was cancelled may have written.
                has_changed = error is not None or (writes(value) if callable(writes) else writes)
                is_mirrored = storage is Storage.POSTGRES and has_changed
                is_shadowed = placement.assignment.is_shadowing and not placement.assignment.is_back
                if is_mirrored or is_shadowed:
                    compared = result if is_shadowed and is_compared and is_known(result) else None
                    follow_up = self._follow_up(held.pop_all(), user_ids, operation, call, compared, is_mirrored)
                    # An empty context: the deadline of the request does not apply.
                    task = asyncio.get_running_loop().create_task(follow_up, context=Context())
                    self._follow_ups.add(task)
                    task.add_done_callback(self._follow_ups.discard)
        if error is not None:
            raise error
        return value

    async def wait(self, seconds: float) -> None:
        """Wait that long for the follow-ups of calls that have returned."""
        if self._follow_ups:
            await asyncio.wait(set(self._follow_ups), timeout=seconds)

    async def close(self) -> None:
        """Wait for all follow-ups."""
        while self._follow_ups:
            await asyncio.gather(*self._follow_ups, return_exceptions=True)

    async def _follow_up(
        self,
        held: AsyncExitStack,
        user_ids: Sequence[str],
        operation: str,
        call: StorageCall,
        result: CallResult | None,
        is_mirrored: bool,
    ) -> None:
        """Compare a result with that of the other storage; renew the copy there when it differs or must be exact."""
        placement = self.placement
        is_in_memory = placement.get_storage(user_ids[-1]) is Storage.MEMORY
        other = placement.postgres if is_in_memory else placement.memory
        async with held:
            try:
                async with asyncio.timeout(SHADOW_SECONDS if is_in_memory else None):
                    is_exact = False
                    if result is not None and placement.copied.issuperset(user_ids):
                        is_exact = await self._repeat(operation, call, result, other)
                    for user_id in user_ids if is_mirrored or not is_exact else ():
                        await placement.refresh_copy(user_id)
            except (StorageUnavailableError, TimeoutError):
                placement.copied.difference_update(user_ids)
                placement.counts["shadow_failures", ""] += 1

    async def _repeat(self, operation: str, call: StorageCall, result: CallResult, other: Any) -> bool:
        """Return whether the other storage gives the same result. Raises `StorageUnavailableError` if it gives none."""
        repeated = await run_call(call, other)
        if not is_known(repeated):
            raise StorageUnavailableError
        self.placement.counts["compared", operation] += 1
        if is_equal(result, repeated):
            return True
        self.placement.counts["differences", operation] += 1
        logger.warning("rollout_difference", operation=operation)
        return False
