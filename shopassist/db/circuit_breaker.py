"""The circuit breaker: refuses calls at once while the database is unavailable."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import structlog

from shopassist.db.failures import BusyError, ReadOnlyError, RolledBackError, SlowError
from shopassist.errors import StorageUnavailableError

logger = structlog.get_logger(__name__)

FAILURE_THRESHOLD = 3
"""Consecutive failures that open the breaker. An unanswered probe opens it at once."""

OPEN_SECONDS = 0.5
"""Short, so that the service recovers soon after the database does."""


class BreakerState(StrEnum):
    """Closed lets all calls through, open none, half-open one: the probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Shared by all callers of a process.

    Only an unavailable database counts as failure: neither a refused statement nor a slow one.
    """

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
        state = self.state
        if state is BreakerState.OPEN:
            raise StorageUnavailableError
        if state is BreakerState.HALF_OPEN:
            self._probing = True
        try:
            yield
        except StorageUnavailableError as error:
            self._record_error(error)
            raise
        except Exception:
            self._record_success()
            raise
        else:
            self._record_success()
        finally:
            # After a cancelled probe the next caller probes.
            if state is BreakerState.HALF_OPEN:
                self._probing = False

    def open(self) -> None:
        """Refuse all calls, because the server answers no probe: every further caller would wait in vain."""
        self._record_failure(FAILURE_THRESHOLD)
        self.on_suspicion(StorageUnavailableError())

    def _record_error(self, error: StorageUnavailableError) -> None:
        if isinstance(error, BusyError | RolledBackError):
            self._record_success()  # the database answered
        elif not isinstance(error, SlowError):
            self._record_failure()
        if isinstance(error, ReadOnlyError):
            self.on_suspicion(error)

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
