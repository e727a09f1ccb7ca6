"""One piece of work for all who want its outcome at the same time, within this process."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Outcome = TypeVar("Outcome")
Gone = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Flight(Generic[Outcome]):
    """Work under way, the idempotency key it was begun under, and how many wait for it."""

    task: asyncio.Task[Outcome]
    idempotency_key: str | None
    waiting: int = 0


class Flights(Generic[Outcome]):
    """Work under way, by what it is about."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._flights: dict[object, Flight[Outcome]] = {}

    def get(self, about: object) -> Flight[Outcome] | None:
        """The work under way about this."""
        return self._flights.get(about)

    def begin(self, about: object, work: Coroutine[Any, Any, Outcome], idempotency_key: str | None) -> Flight[Outcome]:
        """Begin work, which ends early when nobody waits for it any more."""
        flight = Flight(asyncio.create_task(work), idempotency_key)
        self._flights[about] = flight
        flight.task.add_done_callback(lambda _: self._flights.pop(about, None))
        return flight

    async def wait(self, flight: Flight[Outcome], gone: Gone | None) -> Outcome:
        """The outcome. Raises what the work raises, and `CancelledError` when `gone` comes to an end before it."""
        watch = asyncio.ensure_future(gone()) if gone else None
        flight.waiting += 1
        try:
            await asyncio.wait({flight.task, watch} if watch else {flight.task}, return_when=asyncio.FIRST_COMPLETED)
            if not flight.task.done():
                raise asyncio.CancelledError
            return flight.task.result()
        finally:
            if watch:
                watch.cancel()
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
