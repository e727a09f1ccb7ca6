"""Single flight: concurrent callers with the same question share one piece of work."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from shopassist.errors import ClientGoneError
from shopassist.query.models import WorkOutcome

WaitForDisconnect = Callable[[], Awaitable[object]]
"""Returns once the client has disconnected."""

CLOSE_TIMEOUT_SECONDS = 2.0
"""Time that abandoned work has to end when the process stops."""


@dataclass(slots=True, eq=False)
class SharedTask:
    """Running work, its idempotency key, and the number of callers that wait for it.

    Work is never cancelled, since it moves credits. It ends by itself when `abandoned` is done, that is, when no caller
    waits any more.
    """

    task: asyncio.Task[WorkOutcome]
    idempotency_key: str | None
    abandoned: asyncio.Future[None]
    waiting: int = 0

    async def wait(self, wait_for_disconnect: WaitForDisconnect | None) -> WorkOutcome:
        """Return the outcome of the work, or raise its error; `ClientGoneError` when the client disconnects first."""
        self.waiting += 1
        watch = [asyncio.ensure_future(wait_for_disconnect())] if wait_for_disconnect else []
        try:
            await asyncio.wait([self.task, *watch], return_when=asyncio.FIRST_COMPLETED)
            if not self.task.done():
                raise ClientGoneError
            return self.task.result()
        finally:
            for task in watch:
                task.add_done_callback(consume_exception)
                task.cancel()
            self.waiting -= 1
            if not self.waiting:
                self.abandon()

    def abandon(self) -> None:
        """Tell the work to end."""
        if not self.abandoned.done():
            self.abandoned.set_result(None)


@dataclass(slots=True)
class SingleFlight:
    """Running work by key."""

    _by_key: dict[object, SharedTask] = field(default_factory=dict)
    _all: set[SharedTask] = field(default_factory=set)

    def get(self, key: object) -> SharedTask | None:
        """Return the running work of `key` that can be joined."""
        shared = self._by_key.get(key)
        return None if shared is None or shared.task.done() or shared.abandoned.done() else shared

    def start(
        self,
        key: object,
        work: Callable[[asyncio.Future[None]], Coroutine[Any, Any, WorkOutcome]],
        idempotency_key: str | None,
    ) -> SharedTask:
        """Start `work`, which takes the future `abandoned`."""
        abandoned = asyncio.get_running_loop().create_future()
        shared = SharedTask(asyncio.create_task(work(abandoned)), idempotency_key, abandoned)
        self._by_key[key] = shared
        self._all.add(shared)
        shared.task.add_done_callback(lambda _: self._remove(key, shared))
        return shared

    async def close(self) -> None:
        """Abandon all work and wait until it has ended and its credits are returned."""
        self.abandon()
        if self._all:
            await asyncio.wait({shared.task for shared in self._all}, timeout=CLOSE_TIMEOUT_SECONDS)

    def abandon(self) -> None:
        """Tell all work to end; its callers then get no answer and are not charged."""
        for shared in self._all:
            shared.abandon()

    def _remove(self, key: object, shared: SharedTask) -> None:
        consume_exception(shared.task)
        self._all.discard(shared)
        if self._by_key.get(key) is shared:
            del self._by_key[key]


def consume_exception(future: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a future, so that asyncio does not log it as never retrieved."""
    if not future.cancelled():
        future.exception()
