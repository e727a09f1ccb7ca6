"""How the database is asked: within a time, again where that is safe, and not at all while it is known to be away."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from shopassist.db.resilience.breaker import Breaker, State
from shopassist.db.resilience.failures import ConnectionLostError, NotSentError, ReadOnlyError, UndoneError, translated

Result = TypeVar("Result")

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 0.5

BUDGET_SHARE = 0.1
"""Retries that a request adds to what may be spent: however bad it gets, load grows by a tenth."""
BUDGET_MOST = 10.0

GRACE_SECONDS = 0.2
"""What is under way when the database is found to be away gets this much longer."""

SATURATED_SECONDS = 5.0
"""How long after a wait in vain for a connection others wait but briefly."""
SATURATED_PATIENCE_SECONDS = 0.4

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_began: ContextVar[float | None] = ContextVar("began", default=None)


@contextmanager
def deadline_within(seconds: float) -> Iterator[None]:
    """What is asked of the database in this block serves a request that nobody waits for any longer than that."""
    token, began = _deadline.set(time.monotonic() + seconds), _began.set(_began.get() or time.monotonic())
    try:
        yield
    finally:
        _began.reset(began)
        _deadline.reset(token)


def request_began() -> float:
    """When the request came that is being served, by `time.monotonic()`; now, where none is."""
    return _began.get() or time.monotonic()


@dataclass(frozen=True, slots=True)
class Limits:
    """Attempts, and seconds: of attempts altogether, of a hot statement, of a request's unit, of a wait."""

    attempts: int = 3
    retry_seconds: float = 2.0
    hot_seconds: float = 0.8
    unit_seconds: float = 1.8
    wait_seconds: float = 1.0


@dataclass(slots=True)
class Figures:
    """What happened so far in this process."""

    retries: int = 0
    retries_refused: int = 0
    waits_in_vain: int = 0
    lost: int = 0


class Resilience:
    """One policy for all that asks the database, shared by all callers of a process; nothing else retries."""

    def __init__(self, limits: Limits = Limits(), pause: Callable[[float, float], float] = random.uniform) -> None:
        """`pause` draws the seconds between two attempts, from 0 to a bound that doubles (full jitter)."""
        self.limits = limits
        self._pause = pause
        self._budget = BUDGET_MOST
        self._units: set[Callable[[], None]] = set()
        self._saturated_until = 0.0
        self._figures = Figures()
        self.breaker = Breaker(self._hurry)

    async def run(self, operation: Callable[[], Awaitable[Result]], repeatable: bool = False) -> Result:
        """`operation`'s result, which is done again after a failure that left nothing behind.

        `repeatable` operations may be done twice, so they are done again as well when it is not known whether they
        were. Raises domain errors in place of the driver's.
        """
        give_up_at, attempt = time.monotonic() + self.limits.retry_seconds, 1
        self._budget = min(BUDGET_MOST, self._budget + BUDGET_SHARE)
        while True:
            try:
                with self.breaker.guarded(), translated():
                    return await operation()
            except (NotSentError, UndoneError, ReadOnlyError, ConnectionLostError) as error:
                if isinstance(error, ConnectionLostError):
                    self._figures.lost += 1
                    if not repeatable:
                        raise
                pause = self._pause(0, min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt))
                if attempt >= self.limits.attempts or time.monotonic() + pause > give_up_at:
                    raise
                if not self._spent():
                    raise
            attempt += 1
            await asyncio.sleep(pause)

    @contextmanager
    def waiting(self) -> Iterator[float]:
        """A wait for a connection, and the seconds it may take.

        No longer than the request lives, and but briefly when others have just waited in vain.
        """
        most = self.limits.wait_seconds
        if time.monotonic() < self._saturated_until:
            most = SATURATED_PATIENCE_SECONDS
        deadline = _deadline.get()
        if deadline is not None:
            most = max(0.0, min(most, deadline - time.monotonic()))
        try:
            yield most
        except TimeoutError:
            self._figures.waits_in_vain += 1
            self._saturated_until = time.monotonic() + SATURATED_SECONDS
            raise
        else:
            self._saturated_until = 0.0

    @contextmanager
    def unit(self, cut: Callable[[], None]) -> Iterator[None]:
        """A block in which a request's unit of work must be done; when its time is up `cut` cuts its connection.

        Cancelling would not do: whoever is cancelled first tells the server, which may not answer. Work that serves no
        request takes the time it takes.
        """
        deadline = _deadline.get()
        if deadline is None:
            yield
            return
        seconds = min(self.limits.unit_seconds, max(0.0, deadline - time.monotonic()))
        timer = asyncio.get_running_loop().call_later(seconds, cut)
        self._units.add(cut)
        try:
            yield
        finally:
            timer.cancel()
            self._units.discard(cut)

    def figures(self) -> dict[str, Any]:
        """The breaker's state, how often it opened, and what was done about failures."""
        return {"breaker": self.breaker.state.value, "opened": self.breaker.times_opened, **asdict(self._figures)}

    @property
    def is_available(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self.breaker.state is State.CLOSED

    def _spent(self) -> bool:
        if self._budget < 1:
            self._figures.retries_refused += 1
            return False
        self._budget -= 1
        self._figures.retries += 1
        return True

    def _hurry(self) -> None:
        """Do not let requests wait for what a database that is away will not finish."""
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._cut_units)

    def _cut_units(self) -> None:
        if not self.is_available:
            for cut in list(self._units):
                cut()
