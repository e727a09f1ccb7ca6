"""One piece of work for all who want its outcome at the same time, within this process."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from shopassist.errors import ClientGoneError

Outcome = TypeVar("Outcome")
Gone = Callable[[], Awaitable[object]]

CLOSE_SECONDS = 3.0
"""How long work that is told to end may take to do so."""


@dataclass(slots=True, eq=False)
class Flight(Generic[Outcome]):
    """Work under way, the idempotency key it was begun under, and how many wait for it.

    Work is never cancelled, since money moves in it: `abandoned` is set when nobody waits any more, and it ends.
    """

    task: asyncio.Task[Outcome]
    idempotency_key: str | None
    abandoned: asyncio.Event
    waiting: int = 0


@dataclass(slots=True)
class Flights(Generic[Outcome]):
    """Work under way, by what it is about."""

    _flights: dict[object, Flight[Outcome]] = field(default_factory=dict)
    _every: set[Flight[Outcome]] = field(default_factory=set)

    def get(self, about: object) -> Flight[Outcome] | None:
        """The work under way about this that somebody waits for."""
        flight = self._flights.get(about)
        return None if flight is None or flight.task.done() or flight.abandoned.is_set() else flight

    def begin(
        self,
        about: object,
        work: Callable[[asyncio.Event], Coroutine[Any, Any, Outcome]],
        idempotency_key: str | None,
    ) -> Flight[Outcome]:
        """Begin work, which is given the event of being abandoned."""
        abandoned = asyncio.Event()
        flight = Flight(asyncio.create_task(work(abandoned)), idempotency_key, abandoned)
        self._flights[about] = flight
        self._every.add(flight)
        flight.task.add_done_callback(lambda _: self._end(about, flight))
        return flight

    async def wait(self, flight: Flight[Outcome], gone: Gone | None) -> Outcome:
        """The outcome. Raises what the work raises, and `ClientGoneError` when `gone` comes to an end before it."""
        watch = asyncio.ensure_future(gone()) if gone else None
        flight.waiting += 1
        try:
            await asyncio.wait({flight.task, watch} if watch else {flight.task}, return_when=asyncio.FIRST_COMPLETED)
            if not flight.task.done():
                raise ClientGoneError
            return flight.task.result()
        finally:
            if watch:
                watch.add_done_callback(heard)
                watch.cancel()
            flight.waiting -= 1
            if not flight.waiting:
                flight.abandoned.set()

    async def close(self) -> None:
        """Abandon what is under way, and wait until it has ended and its credits are back."""
        for flight in self._every:
            flight.abandoned.set()
        if self._every:
            await asyncio.wait({flight.task for flight in self._every}, timeout=CLOSE_SECONDS)

    def _end(self, about: object, flight: Flight[Outcome]) -> None:
        heard(flight.task)
        self._every.discard(flight)
        if self._flights.get(about) is flight:
            del self._flights[about]


def heard(task: asyncio.Future[Any]) -> None:
    """Take note of how a task ended that perhaps nobody waits for."""
    if not task.cancelled():
        task.exception()
