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
"""Consecutive failures that open the breaker."""

OPEN_SECONDS = 0.5
"""Short, so that the service recovers soon after the database does."""


class BreakerState(StrEnum):
    """Closed lets all calls through, open none, half-open one: the probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Shared by all callers of a process. Only an unavailable database counts as failure, not a refused statement."""

    def __init__(
        self,
        on_open: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        open_seconds: float = OPEN_SECONDS,
    ) -> None:
        """Call `on_open` when the breaker opens; it then stays open for `open_seconds`.

        `on_suspicion` is called with errors which suggest that another server has become the primary.
        """
        self.on_suspicion: Callable[[StorageUnavailableError], None] = lambda _: None
        self._on_open = on_open
        self._monotonic = monotonic
        self._open_seconds = open_seconds
        self._failures = 0
        self._open_until = 0.0
        self._probing = False
        self.times_opened = 0

    @property
    def state(self) -> BreakerState:
        """Return the state that the next caller finds."""
        if self._failures < FAILURE_THRESHOLD:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._probing or self._monotonic() < self._open_until else BreakerState.HALF_OPEN

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Run the block and record how it ends. Raises `StorageUnavailableError` instead while open."""
        probing = False
        if self._failures >= FAILURE_THRESHOLD:
            if self._probing or self._monotonic() < self._open_until:
                raise StorageUnavailableError
            self._probing = probing = True
        try:
            yield
        except ReadOnlyError as error:
            self._record_success()
            self.on_suspicion(error)
            raise
        except (BusyError, RolledBackError):
            self._record_success()
            raise
        except UnresponsiveError as error:
            self._record_failure(FAILURE_THRESHOLD)  # every further caller would wait as long
            self.on_suspicion(error)
            raise
        except StorageUnavailableError:
            self._record_failure()
            raise
        except Exception:
            self._record_success()
            raise
        else:
            self._record_success()
        finally:
            # After a cancelled probe the next caller probes.
            if probing:
                self._probing = False

    def _record_success(self) -> None:
        if self._failures >= FAILURE_THRESHOLD:
            logger.debug("breaker_closed")
        self._failures = 0

    def _record_failure(self, weight: int = 1) -> None:
        was_closed = self._failures < FAILURE_THRESHOLD
        self._failures += weight
        if self._failures < FAILURE_THRESHOLD:
            return
        self._open_until = self._monotonic() + self._open_seconds
        if was_closed:
            self.times_opened += 1
            logger.debug("breaker_opened")
            self._on_open()


MIN_RETRY_PAUSE_SECONDS = 0.02
MAX_RETRY_PAUSE_SECONDS = 0.5

RETRY_BUDGET_SHARE = 0.1
"""Retries that each request adds to the budget: retries add at most a tenth to the load."""
MAX_RETRY_BUDGET = 10.0

GRACE_SECONDS = 0.2
"""Time left for units of work in progress when the breaker opens."""

SATURATED_SECONDS = 5.0
"""How long after a pool time-out the shorter wait applies."""
SATURATED_WAIT_SECONDS = 0.4

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)
_request_start: ContextVar[float | None] = ContextVar("request_start", default=None)


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Give the database calls in this block a common deadline in `seconds`."""
    now = time.monotonic()
    deadline = _deadline.set(now + seconds)
    start = _request_start.set(_request_start.get() or now)
    try:
        yield
    finally:
        _request_start.reset(start)
        _deadline.reset(deadline)


def get_request_start() -> float:
    """Return the start of the current request by `time.monotonic()`, or now if there is none."""
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
    """Number of attempts, and seconds for: all attempts, a direct statement, a unit of work, a connection."""

    attempts: int = 3
    retry_seconds: float = 2.0
    statement_seconds: float = 0.8
    unit_seconds: float = 1.8
    wait_seconds: float = 1.0


@dataclass(slots=True)
class ResilienceCounters:
    """Events in this process so far. `lost`: connections lost during a statement."""

    retries: int = 0
    retries_refused: int = 0
    waits_in_vain: int = 0
    lost: int = 0


class Resilience:
    """The failure policy of all database calls of a process; nothing else retries."""

    def __init__(
        self, limits: ResilienceLimits = ResilienceLimits(), pause: Callable[[float, float], float] = random.uniform
    ) -> None:
        """`pause` draws the seconds between two attempts, from 0 to a limit that doubles (full jitter)."""
        self.limits = limits
        self._pause = pause
        self._budget = MAX_RETRY_BUDGET
        self._units: set[Callable[[], None]] = set()
        self._saturated_until = 0.0
        self._counters = ResilienceCounters()
        self.breaker = CircuitBreaker(self._schedule_cut)

    async def run(self, operation: Callable[[], Awaitable[Result]], repeatable: bool = False) -> Result:
        """Return `operation`'s result; retry it after failures that are known to have had no effect.

        A `repeatable` operation is also retried when its outcome is unknown. Raises domain errors.
        """
        give_up_at, attempt = time.monotonic() + self.limits.retry_seconds, 1
        self._budget = min(MAX_RETRY_BUDGET, self._budget + RETRY_BUDGET_SHARE)
        while True:
            try:
                with self.breaker.guard(), translate_errors():
                    return await operation()
            except (NotSentError, RolledBackError, ReadOnlyError, ConnectionLostError) as error:
                if isinstance(error, ConnectionLostError):
                    self._counters.lost += 1
                    if not repeatable:
                        raise
                pause = self._pause(0, min(MAX_RETRY_PAUSE_SECONDS, MIN_RETRY_PAUSE_SECONDS * 2**attempt))
                if attempt >= self.limits.attempts or time.monotonic() + pause > give_up_at:
                    raise
                if not self._spend_retry():
                    raise
            attempt += 1
            await asyncio.sleep(pause)

    @contextmanager
    def limit_wait(self) -> Iterator[float]:
        """Yield the seconds that a wait for a connection may take; the block raises `TimeoutError` after them.

        The wait ends with the request's deadline, and is short if another wait has just timed out.
        """
        seconds = self.limits.wait_seconds
        if time.monotonic() < self._saturated_until:
            seconds = SATURATED_WAIT_SECONDS
        deadline = _deadline.get()
        if deadline is not None:
            seconds = max(0.0, min(seconds, deadline - time.monotonic()))
        try:
            yield seconds
        except TimeoutError:
            self._counters.waits_in_vain += 1
            self._saturated_until = time.monotonic() + SATURATED_SECONDS
            raise
        else:
            self._saturated_until = 0.0

    @contextmanager
    def limit_unit(self, cut: Callable[[], None]) -> Iterator[None]:
        """Call `cut`, which closes the connection, if the block takes longer than a request's unit of work may.

        Cancelling is not enough: a cancelled driver first waits for the server. Work outside a request has no limit.
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

    def get_counters(self) -> dict[str, Any]:
        """Return the breaker's state, how often it opened, and the counters."""
        return {"breaker": self.breaker.state.value, "opened": self.breaker.times_opened, **asdict(self._counters)}

    @property
    def is_available(self) -> bool:
        """Return whether the last calls to the database succeeded."""
        return self.breaker.state is BreakerState.CLOSED

    def _spend_retry(self) -> bool:
        if self._budget < 1:
            self._counters.retries_refused += 1
            return False
        self._budget -= 1
        self._counters.retries += 1
        return True

    def _schedule_cut(self) -> None:
        # Requests must not wait for units of work that an unavailable database will not finish.
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._cut_units)

    def _cut_units(self) -> None:
        if not self.is_available:
            for cut in list(self._units):
                cut()
