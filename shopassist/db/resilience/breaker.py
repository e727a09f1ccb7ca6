"""The circuit breaker: with the database away callers are told at once, and one of them finds out when it is back."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import structlog

from shopassist.db.resilience.failures import BusyError, ReadOnlyError, UndoneError, UnresponsiveError
from shopassist.errors import StorageUnavailableError

logger = structlog.get_logger(__name__)

THRESHOLD = 3
"""Failures in a row that open it."""

OPEN_SECONDS = 0.5
"""How long nobody asks: short, so that service is whole soon after the database is."""


class State(StrEnum):
    """Closed lets everyone through, open nobody, and half-open one, the probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
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
    def state(self) -> State:
        """What the next caller meets."""
        if self._failures < THRESHOLD:
            return State.CLOSED
        return State.OPEN if self._probing or self._monotonic() < self._open_until else State.HALF_OPEN

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Let the block through, and learn from how it ends. Raises `StorageUnavailableError` instead while open."""
        probing = False
        if self._failures >= THRESHOLD:
            if self._probing or self._monotonic() < self._open_until:
                raise StorageUnavailableError
            self._probing = probing = True
        try:
            yield
        except ReadOnlyError as error:
            self._succeeded()
            self.suspected(error)
            raise
        except (BusyError, UndoneError):
            self._succeeded()
            raise
        except UnresponsiveError as error:
            self._failed(THRESHOLD)  # each further caller would wait as long
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
        if self._failures >= THRESHOLD:
            logger.debug("breaker_closed")
        self._failures = 0

    def _failed(self, weight: int = 1) -> None:
        was_closed = self._failures < THRESHOLD
        self._failures += weight
        if self._failures < THRESHOLD:
            return
        self._open_until = self._monotonic() + self._open_seconds
        if was_closed:
            self.times_opened += 1
            logger.debug("breaker_opened")
            self._opened()
