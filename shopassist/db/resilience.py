"""Retries, time limits and deadlines for all access to the database."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog

from shopassist.db.circuit_breaker import BreakerState, CircuitBreaker
from shopassist.db.failures import (
    ConnectionLostError,
    NotSentError,
    ReadOnlyError,
    RolledBackError,
    SlowError,
    translate_errors,
)
from shopassist.db.ports import Result
from shopassist.errors import StorageUnavailableError
from shopassist.settings.database import DatabaseConfig

logger = structlog.get_logger(__name__)

MIN_RETRY_PAUSE_SECONDS = 0.02
MAX_RETRY_PAUSE_SECONDS = 0.5

RETRY_BUDGET_SHARE = 0.1
"""Retries that each request adds to the budget: retries add at most a tenth to the load."""
MAX_RETRY_BUDGET = 10.0

PATIENCE_SECONDS = 1.0
"""How much longer than `DB_HOT_TIMEOUT` a statement may take while the server answers probes."""

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
    """The freshness of what one request read. Nothing committed before `as_of` is missing; None if that is unknown."""

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
    """Number of attempts, and time limits in seconds.

    `retry_seconds` is for all attempts together. A statement or unit of work that takes `probe_seconds` causes a probe
    of the server, which has as long to answer; after `work_seconds` it is given up. `wait_seconds` is for a connection.
    """

    attempts: int = 3
    retry_seconds: float = 2.0
    probe_seconds: float = 0.8
    work_seconds: float = 1.8
    wait_seconds: float = 1.0

    @classmethod
    def from_settings(cls, config: DatabaseConfig) -> "ResilienceLimits":
        """Return the limits for the primary."""
        return cls(
            attempts=config.retry_attempts,
            retry_seconds=config.retry_timeout,
            probe_seconds=config.hot_timeout,
            work_seconds=config.hot_timeout + PATIENCE_SECONDS,
        )


class Resilience:
    """The failure policy of all database calls of a process; nothing else retries."""

    def __init__(
        self, limits: ResilienceLimits = ResilienceLimits(), pause: Callable[[float, float], float] = random.uniform
    ) -> None:
        """`pause` draws the seconds between two attempts, from 0 to a limit that doubles (full jitter).

        `ask_server` asks the server, on a new connection, which of its processes are at work. `on_lost` is
        called when one has disappeared.
        """
        self.limits = limits
        self._pause = pause
        self._budget = MAX_RETRY_BUDGET
        self._watches: set[Watch] = set()
        self._probe: asyncio.Task[frozenset[int] | None] | None = None
        self._saturated_until = 0.0
        self._counters = {"retries": 0, "retries_refused": 0, "waits_in_vain": 0, "lost": 0}
        self.breaker = CircuitBreaker(self._schedule_cut)
        self.on_lost: Callable[[], None] = lambda: None
        self.ask_server: Callable[[], Awaitable[frozenset[int] | None]] = _ask_no_server

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
                is_lost = isinstance(error, ConnectionLostError)
                self._counters["lost"] += is_lost
                pause = self._pause(0, min(MAX_RETRY_PAUSE_SECONDS, MIN_RETRY_PAUSE_SECONDS * 2**attempt))
                is_final = isinstance(error, SlowError) or (is_lost and not repeatable)
                is_last = attempt >= self.limits.attempts or time.monotonic() + pause > give_up_at
                if is_final or is_last or not self._spend_retry():
                    raise
            attempt += 1
            await asyncio.sleep(pause)

    @contextmanager
    def limit_wait(self) -> Iterator[float]:
        """Yield the seconds that a wait for a connection may take; the block raises `TimeoutError` after them.

        The wait ends with the request's deadline, and is short if another wait has just timed out.
        """
        is_saturated = time.monotonic() < self._saturated_until
        seconds = SATURATED_WAIT_SECONDS if is_saturated else self.limits.wait_seconds
        deadline = _deadline.get()
        if deadline is not None:
            seconds = max(0.0, min(seconds, deadline - time.monotonic()))
        try:
            yield seconds
        except TimeoutError:
            self._counters["waits_in_vain"] += 1
            self._saturated_until = time.monotonic() + SATURATED_SECONDS
            raise
        else:
            self._saturated_until = 0.0

    @contextmanager
    def watch(self, cut: Callable[[], None], seconds: float | None = None) -> Iterator["Watch"]:
        """Call `cut`, which must end the block with an error, when the block has waited for the server long enough.

        That is after `work_seconds` or the given `seconds`: then `SlowError` is raised. It is earlier if the server
        answers no probe, or does not know of the work any more: then `ConnectionLostError` is raised.
        """
        watch = Watch(self, cut, self.limits.work_seconds if seconds is None else seconds)
        self._watches.add(watch)
        try:
            yield watch
        except Exception as error:
            if watch.failure is None:
                raise
            raise watch.failure() from error
        finally:
            watch.end()
            self._watches.discard(watch)

    @contextmanager
    def limit_unit(self, cut: Callable[[], None], pid: int | None = None) -> Iterator[None]:
        """Watch a unit of work that the server process `pid` does. `cut` must close its connection.

        Cancelling is not enough: a cancelled driver first waits for the server. Work outside a request has no limit.
        """
        deadline = _deadline.get()
        if deadline is None:
            yield
            return
        with self.watch(cut, min(self.limits.work_seconds, max(0.0, deadline - time.monotonic()))) as watch:
            watch.pid = pid
            yield

    async def probe_server(self) -> frozenset[int] | None:
        """Return the ids of the server processes at work, or None if the server does not tell; callers share a probe.

        Raises `StorageUnavailableError` if there is no answer; then the breaker is open.
        """
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(self._probe_once())
        return await asyncio.shield(self._probe)

    async def _probe_once(self) -> frozenset[int] | None:
        try:
            async with asyncio.timeout(self.limits.probe_seconds):
                return await self.ask_server()
        except (TimeoutError, OSError, StorageUnavailableError) as error:
            self.breaker.open()
            self._cut_watched()
            raise StorageUnavailableError from error
        except Exception as error:  # noqa: BLE001 - a refusal is an answer
            logger.debug("probe_refused", error=type(error).__name__)
            return None

    def get_counters(self) -> dict[str, Any]:
        """Return the breaker's state, how often it opened, and counts of events in this process."""
        return {"breaker": self.breaker.state.value, "opened": self.breaker.times_opened, **self._counters}

    @property
    def is_available(self) -> bool:
        """Return whether the last calls to the database succeeded."""
        return self.breaker.state is BreakerState.CLOSED

    def _spend_retry(self) -> bool:
        if self._budget < 1:
            self._counters["retries_refused"] += 1
            return False
        self._budget -= 1
        self._counters["retries"] += 1
        return True

    def _schedule_cut(self) -> None:
        # Requests must not wait for what an unavailable database will not finish.
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._cut_watched)

    def _cut_watched(self) -> None:
        if not self.is_available:
            for watch in list(self._watches):
                watch.fail(ConnectionLostError)


async def _ask_no_server() -> None:
    """Answer in place of a server, for tests of the policy alone."""


class Watch:
    """Work in progress on the server: when to probe the server, and when to give the work up.

    `pid` is the server process that does it, if known.
    """

    __slots__ = ("_cut", "_ends_at", "_policy", "_timer", "failure", "pid")

    def __init__(self, policy: Resilience, cut: Callable[[], None], seconds: float) -> None:
        self._policy = policy
        self._cut = cut
        self.pid: int | None = None
        self.failure: type[ConnectionLostError] | None = None
        loop = asyncio.get_running_loop()
        self._ends_at = loop.time() + seconds
        if seconds > policy.limits.probe_seconds:
            self._timer = loop.call_later(policy.limits.probe_seconds, self._start_probe)
        else:
            self._timer = loop.call_later(seconds, self.fail, SlowError)

    def fail(self, failure: type[ConnectionLostError]) -> None:
        """Cut the work, and let it fail with this error, unless it has ended."""
        if self.failure is None and not self._timer.cancelled():
            self._timer.cancel()
            self.failure = failure
            self._cut()

    def end(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _start_probe(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._ends_at, self.fail, SlowError)
        finish = partial(self._finish_probe, self.pid)  # not of a connection that the work gets during the probe
        loop.create_task(self._policy.probe_server()).add_done_callback(finish)

    def _finish_probe(self, pid: int | None, probe: "asyncio.Task[frozenset[int] | None]") -> None:
        if probe.cancelled():
            return
        failure, has_ended = probe.exception(), self._timer.cancelled()
        if failure:
            self.fail(ConnectionLostError)
        elif not has_ended and pid and (at_work := probe.result()) is not None and pid not in at_work:
            # The server lost the connection without our noticing, and others with it.
            self._policy.on_lost()
            self.fail(ConnectionLostError)
