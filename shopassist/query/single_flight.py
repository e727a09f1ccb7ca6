"""Single flight: concurrent callers with the same question share one piece of work."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from shopassist.errors import ClientGoneError

Outcome = TypeVar("Outcome")
DisconnectWait = Callable[[], Awaitable[object]]

WATCH_DELAY_SECONDS = 0.05
"""How long a caller may be gone before it is noticed."""

CLOSE_TIMEOUT_SECONDS = 2.0
"""How long work that is told to end may take to do so."""


@dataclass(slots=True, eq=False)
class SharedTask(Generic[Outcome]):
    """Work under way, the idempotency key it was begun under, and how many wait for it.

    Work is never cancelled, since money moves in it: `abandoned` is done when nobody waits any more, and it ends.
    """

    task: asyncio.Task[Outcome]
    idempotency_key: str | None
    abandoned: asyncio.Future[None]
    waiting: int = 0

    def abandon(self) -> None:
        """Let the work end."""
        if not self.abandoned.done():
            self.abandoned.set_result(None)


@dataclass(slots=True)
class SingleFlight(Generic[Outcome]):
    """Work under way, by what it is about."""

    _flights: dict[object, SharedTask[Outcome]] = field(default_factory=dict)
    _every: set[SharedTask[Outcome]] = field(default_factory=set)

    def get(self, about: object) -> SharedTask[Outcome] | None:
        """The work under way about this that somebody waits for."""
        flight = self._flights.get(about)
        return None if flight is None or flight.task.done() or flight.abandoned.done() else flight

    def begin(
        self,
        about: object,
        work: Callable[[asyncio.Future[None]], Coroutine[Any, Any, Outcome]],
        idempotency_key: str | None,
    ) -> SharedTask[Outcome]:
        """Begin work, which is given the future of being abandoned."""
        abandoned = asyncio.get_running_loop().create_future()
        flight = SharedTask(asyncio.create_task(work(abandoned)), idempotency_key, abandoned)
        self._flights[about] = flight
        self._every.add(flight)
        flight.task.add_done_callback(lambda _: self._end(about, flight))
        return flight

    async def wait(self, flight: SharedTask[Outcome], gone: DisconnectWait | None) -> Outcome:
        """The outcome. Raises what the work raises, and `ClientGoneError` when `gone` comes to an end before it."""
        watch = None
        flight.waiting += 1
        try:
            # Most work is over before it would be worth while to watch the caller.
            await wait_first(flight.task, seconds=WATCH_DELAY_SECONDS if gone else None)
            if gone and not flight.task.done():
                watch = asyncio.ensure_future(gone())
                await wait_first(flight.task, watch)
            if not flight.task.done():
                raise ClientGoneError
            return flight.task.result()
        finally:
            if watch:
                watch.add_done_callback(consume_exception)
                watch.cancel()
            flight.waiting -= 1
            if not flight.waiting:
                flight.abandon()

    async def close(self) -> None:
        """Abandon what is under way, and wait until it has ended and its credits are back."""
        self.abandon()
        if self._every:
            await asyncio.wait({flight.task for flight in self._every}, timeout=CLOSE_TIMEOUT_SECONDS)

    def abandon(self) -> None:
        """Let everything that is under way end, whose callers are then told that there is no answer."""
        for flight in self._every:
            flight.abandon()

    def _end(self, about: object, flight: SharedTask[Outcome]) -> None:
        consume_exception(flight.task)
        self._every.discard(flight)
        if self._flights.get(about) is flight:
            del self._flights[about]


async def wait_first(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Return when one of them is done, or time is up; they are left alone.

    For one or two futures `asyncio.wait` costs as much as a statement's part in a batch.
    """
    if any(future.done() for future in futures):
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def end(_: object = None) -> None:
        if not ended.done():
            ended.set_result(None)

    timer = None if seconds is None else loop.call_later(seconds, end)
    for future in futures:
        future.add_done_callback(end)
    try:
        await ended
    finally:
        if timer:
            timer.cancel()
        for future in futures:
            future.remove_done_callback(end)


def consume_exception(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended that perhaps nobody waits for."""
    if not task.cancelled():
        task.exception()
