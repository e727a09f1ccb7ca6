"""Routes each call to the backend of its user, one call at a time per user, and compares backends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import structlog

from shopassist.errors import StorageUnavailableError
from shopassist.rollout.assignment import Side
from shopassist.rollout.backends import Backend, BackendCall, BackendResult
from shopassist.rollout.placement import UserPlacement

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")


class UserLocks:
    """Locks by user id, for as long as somebody has or wants them."""

    def __init__(self) -> None:
        """None is taken."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def held(self, *user_ids: str) -> AsyncIterator[None]:
        """Nothing else happens to those people for the length of the block."""
        taken = await self.taken(user_ids)
        try:
            yield
        finally:
            taken.release()

    async def taken(self, user_ids: Sequence[str]) -> "HeldLocks":
        """The locks of those people, which whoever has them releases."""
        taken = HeldLocks()
        try:
            for user_id in sorted(set(user_ids)):  # the same order for everybody, so that nobody waits in a circle
                lock = self._locks.setdefault(user_id, asyncio.Lock())
                await lock.acquire()
                taken.locks.append(lock)
        except BaseException:
            taken.release()
            raise
        return taken


class HeldLocks:
    """Locks that somebody has."""

    def __init__(self) -> None:
        """None yet."""
        self.locks: list[asyncio.Lock] = []

    def release(self) -> None:
        """Let the next one in."""
        while self.locks:
            self.locks.pop().release()


Changes = Callable[[Any], bool]

SHADOW_SECONDS = 0.5
"""How long the other side may take, for which whoever asks next about the same person waits."""


def always(_: object) -> bool:
    """What was asked may have changed something."""
    return True


def never(_: object) -> bool:
    """What was asked only looks."""
    return False


class Router:
    """Asks, one after the other for each person.

    What follows is done behind the answer, before anything else is asked about the same person.
    """

    def __init__(self, residence: UserPlacement) -> None:
        """`residence` knows who is where."""
        self.residence = residence
        self.locks = UserLocks()
        self._following: set[asyncio.Task[None]] = set()

    async def ask(
        self,
        user_ids: Sequence[str],
        operation: str,
        work: BackendCall[Result],
        changes: Changes = always,
        wanted: Side | None = None,
        is_compared: bool = True,
    ) -> Result:
        """What `work` comes to where those people are, or, if they can be moved there, are wanted.

        `operation` names it in figures; `changes` tells of its result whether state may have changed; what is not to be
        `compared` is never asked of the other side. Raises what `work` raises, and `StorageUnavailableError`.
        """
        taken = await self.locks.taken(user_ids)
        outcome: BackendResult[Result] | None = None
        try:
            place = await self.residence.settle(user_ids, wanted)
            outcome = await BackendResult.of(work, place)
        finally:
            self._count(user_ids, operation, outcome)
            # Of what failed or was given up nobody knows how far it came.
            changed = outcome is None or outcome.error is not None or changes(outcome.result)
            known = None if outcome is None or outcome.is_unavailable or not is_compared else outcome
            self._afterwards(taken, user_ids, operation, work, known, changed)
        return outcome.given()

    async def close(self) -> None:
        """Wait for what is still to follow."""
        while self._following:
            await asyncio.gather(*self._following, return_exceptions=True)

    def _count(self, user_ids: Sequence[str], operation: str, outcome: BackendResult[Any] | None) -> None:
        side = self.residence.side_of(user_ids[-1])
        self.residence.figures.asked[side] += 1
        if outcome is not None and outcome.is_unavailable:
            self.residence.figures.failed[side] += 1
            logger.debug("rollout_unavailable", operation=operation)

    def _afterwards(
        self,
        taken: HeldLocks,
        user_ids: Sequence[str],
        operation: str,
        work: BackendCall[Any],
        known: BackendResult[Any] | None,
        changed: bool,
    ) -> None:
        """Release the locks, once what is to follow is done; whoever asked does not wait for it.

        `known` is what there is to compare.
        """
        residence = self.residence
        in_postgres = residence.side_of(user_ids[-1]) is Side.POSTGRES
        is_shadowing = residence.dial.is_shadowing and not residence.dial.is_back
        if not is_shadowing and not (in_postgres and changed):
            taken.release()
            return

        async def follow() -> None:
            try:
                if not in_postgres:
                    await self._shadow(user_ids, operation, work, known)
                    return
                if is_shadowing and known is not None:
                    await self._compare(operation, work, known, residence.mirror)
                for user_id in user_ids if changed else ():
                    await residence.mirror_again(user_id)
            finally:
                taken.release()

        # The time that a request has left is no concern of what follows.
        task = asyncio.get_running_loop().create_task(follow(), context=Context())
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _shadow(
        self, user_ids: Sequence[str], operation: str, work: BackendCall[Any], outcome: BackendResult[Any] | None
    ) -> None:
        residence = self.residence
        try:
            async with asyncio.timeout(SHADOW_SECONDS):
                agrees = False
                if outcome is not None and residence.shadowed.issuperset(user_ids):
                    agrees = await self._compare(operation, work, outcome, residence.postgres)
                if not agrees:
                    for user_id in user_ids:
                        await residence.shadow_again(user_id)
        except (StorageUnavailableError, TimeoutError):
            residence.shadowed.difference_update(user_ids)
            residence.figures.shadow_failures += 1

    async def _compare(
        self, operation: str, work: BackendCall[Any], outcome: BackendResult[Any], other: Backend
    ) -> bool:
        """Whether the other side says the same. Raises `StorageUnavailableError` when it says nothing."""
        shadow = await BackendResult.of(work, other)
        if shadow.is_unavailable:
            raise StorageUnavailableError
        self.residence.figures.compared[operation] += 1
        if not outcome.differs(shadow):
            return True
        self.residence.figures.differences[operation] += 1
        logger.warning("rollout_difference", operation=operation)
        return False
