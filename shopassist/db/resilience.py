"""Circuit breaker, retries, time limits and deadlines for all access to the database."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import structlog

from shopassist.db.failures import (
    BusyError,
    ConnectionLostError,
    NotSentError,
    ReadOnlyError,
    RolledBackError,
    UnresponsiveError,
    translate_errors,
)
from shopassist.errors import StorageUnavailableError

logger = structlog.get_logger(__name__)

Result = TypeVar("Result")

FAILURE_THRESHOLD = 3
"""Failures in a row that open it."""

OPEN_SECONDS = 0.5
"""How long nobody asks: short, so that service is whole soon after the database is."""


class BreakerState(StrEnum):
    """Closed lets everyone through, open nobody, and half-open one, the probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Shared by all callers of a process. Only a database that is away counts as failure, not what it says no to."""

    def __init__(
        self,
        opened: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        """`opened` is called when it opens. Nobody asks then for `open_seconds`.

        `suspected` is called with what makes it likely that this server is no longer the one to ask.
        """
        self.suspected: Callable[[StorageUnavailableError], None] = lambda _: None
        self._opened = opened
        self._monotonic = monotonic
        self._open_seconds = open_seconds
        self._failures = 0
        self._open_until = 0.0
        self._probing = False
        self.times_opened = 0

    @property
    def state(self) -> BreakerState:
        """What the next caller meets."""
        if self._failures < FAILURE_THRESHOLD:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._probing or self._monotonic() < self._open_until else BreakerState.HALF_OPEN

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Let the block through, and learn from how it ends. Raises `StorageUnavailableError` instead while open."""
        probing = False
        if self._failures >= FAILURE_THRESHOLD:
            if self._probing or self._monotonic() < self._open_until:
                raise StorageUnavailableError
            self._probing = probing = True
        try:
            yield
        except ReadOnlyError as error:
            self._succeeded()
            self.suspected(error)
            raise
        except (BusyError, RolledBackError):
            self._succeeded()
            raise
        except UnresponsiveError as error:
            self._failed(FAILURE_THRESHOLD)  # each further caller would wait as long
            self.suspected(error)
            raise
        except StorageUnavailableError:
            self._failed()
            raise
        except Exception:
            self._succeeded()
            raise
        else:
            self._succeeded()
        finally:
            # A probe that is cancelled leaves its place to the next.
            if probing:
                self._probing = False

    def _succeeded(self) -> None:
        if self._failures >= FAILURE_THRESHOLD:
            logger.debug("breaker_closed")
        self._failures = 0

    def _failed(self, weight: int = 1) -> None:
        was_closed = self._failures < FAILURE_THRESHOLD
        self._failures += weight
        if self._failures < FAILURE_THRESHOLD:
            return
        self._open_until = self._monotonic() + self._open_seconds
        if was_closed:
            self.times_opened += 1
            logger.debug("breaker_opened")
            self._opened()


MIN_RETRY_PAUSE_SECONDS = 0.02
MAX_RETRY_PAUSE_SECONDS = 0.5

RETRY_BUDGET_SHARE = 0.1
"""Retries that a request adds to what may be spent: however bad it gets, load grows by a tenth."""
MAX_RETRY_BUDGET = 10.0

GRACE_SECONDS = 0.2
"""What is under way when the database is found to be away gets this much longer."""

SATURATED_SECONDS = 5.0
"""How long after a wait in vain for a connection others wait but briefly."""
SATURATED_WAIT_SECONDS = 0.4

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_request_start: ContextVar[float | None] = ContextVar("began", default=None)


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """What is asked of the database in this block serves a request that nobody waits for any longer than that."""
    token, began = (
        _deadline.set(time.monotonic() + seconds),
        _request_start.set(_request_start.get() or time.monotonic()),
    )
    try:
        yield
    finally:
        _request_start.reset(began)
        _deadline.reset(token)


def get_request_start() -> float:
    """When the request came that is being served, by `time.monotonic()`; now, where none is."""
    return _request_start.get() or time.monotonic()


@dataclass(slots=True)
class Freshness:
    """The freshness of what one request read.

    Nothing committed before `as_of` is missing; None if that is unknown.
    """

    is_stale: bool = False
    as_of: datetime | None = None


_freshness: ContextVar[Freshness | None] = ContextVar("freshness", default=None)


@contextmanager
def track_freshness() -> Iterator[Freshness]:
    """Record in the yielded object whether the block reads stale data."""
    freshness = Freshness()
    token = _freshness.set(freshness)
    try:
        yield freshness
    finally:
        _freshness.reset(token)


def note_stale(as_of: datetime | None) -> None:
    """Record that the current request read data that may be old; of several reads the oldest counts."""
    freshness = _freshness.get()
    if freshness is None:
        return
    is_older = as_of is None or (freshness.as_of is not None and as_of < freshness.as_of)
    if is_older or not freshness.is_stale:
        freshness.as_of = as_of
    freshness.is_stale = True


@dataclass(frozen=True, slots=True)
class ResilienceLimits:
    """Attempts, and seconds: of attempts altogether, of a hot statement, of a request's unit, of a wait."""

    attempts: int = 3
    retry_seconds: float = 2.0
    hot_seconds: float = 0.8
    unit_seconds: float = 1.8
    wait_seconds: float = 1.0


@dataclass(slots=True)
class ResilienceCounters:
    """What happened so far in this process."""

    retries: int = 0
    retries_refused: int = 0
    waits_in_vain: int = 0
    lost: int = 0


class Resilience:
    """One policy for all that asks the database, shared by all callers of a process; nothing else retries."""

    def __init__(
        self, limits: ResilienceLimits = ResilienceLimits(), pause: Callable[[float, float], float] = random.uniform
    ) -> None:
        """`pause` draws the seconds between two attempts, from 0 to a bound that doubles (full jitter)."""
        self.limits = limits
        self._pause = pause
        self._budget = MAX_RETRY_BUDGET
        self._units: set[Callable[[], None]] = set()
        self._saturated_until = 0.0
        self._figures = ResilienceCounters()
        self.breaker = CircuitBreaker(self._hurry)

    async def run(self, operation: Callable[[], Awaitable[Result]], repeatable: bool = False) -> Result:
        """`operation`'s result, which is done again after a failure that left nothing behind.

        `repeatable` operations may be done twice, so they are done again as well when it is not known whether they
        were. Raises domain errors in place of the driver's.
        """
        give_up_at, attempt = time.monotonic() + self.limits.retry_seconds, 1
        self._budget = min(MAX_RETRY_BUDGET, self._budget + RETRY_BUDGET_SHARE)
        while True:
            try:
                with self.breaker.guarded(), translate_errors():
                    return await operation()
            except (NotSentError, RolledBackError, ReadOnlyError, ConnectionLostError) as error:
                if isinstance(error, ConnectionLostError):
                    self._figures.lost += 1
                    if not repeatable:
                        raise
                pause = self._pause(0, min(MAX_RETRY_PAUSE_SECONDS, MIN_RETRY_PAUSE_SECONDS * 2**attempt))
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
            most = SATURATED_WAIT_SECONDS
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
        return self.breaker.state is BreakerState.CLOSED

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
