"""Count requests per caller and per network in one-minute windows."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import NamedTuple

from shopassist.errors import RateLimitedError
from shopassist.identity.caller import Caller

WINDOW_SECONDS = 60
MAX_COUNTED_CALLERS = 100_000
"""Callers in one generation of windows; the generation before the current one is dropped as a whole."""


class RateLimitKind(StrEnum):
    """What is counted separately: questions and all other API requests."""

    QUESTIONS = "questions"
    READS = "reads"


class WindowCount(NamedTuple):
    """Requests left in a window and the seconds until it ends; -1 left when it was already full."""

    left: int
    seconds: float


class RateCounters:
    """Request counts of this process, in constant time per request.

    Keys not seen in the current or previous generation are dropped, so that made-up names do not fill the memory.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_callers: int = MAX_COUNTED_CALLERS) -> None:
        """Keep at most `max_callers` windows per generation; `clock` returns seconds."""
        self._clock = clock
        self._max_callers = max_callers
        self._recent: dict[Hashable, list[float]] = {}
        self._previous: dict[Hashable, list[float]] = {}
        self._generation_started_at = clock()

    def hit(self, quotas: Sequence[tuple[Hashable, int]]) -> list[WindowCount]:
        """Count one request for each (key, limit), or for none of them when one window is full."""
        now = self._clock()
        if now - self._generation_started_at > WINDOW_SECONDS or len(self._recent) >= self._max_callers:
            self._previous, self._recent, self._generation_started_at = self._recent, {}, now
        windows = [(self._get_window(key, now), limit) for key, limit in quotas]
        is_full = any(window[0] >= limit for window, limit in windows)
        counts = []
        for window, limit in windows:
            window[0] += not is_full
            left = limit - int(window[0])
            counts.append(WindowCount(-1 if is_full and left <= 0 else left, window[1] - now))
        return counts

    def _get_window(self, key: Hashable, now: float) -> list[float]:
        """Return the [requests, end] of the key's current window."""
        window = self._recent.get(key) or self._previous.pop(key, None)
        if window is None or window[1] <= now:
            window = [0, now + WINDOW_SECONDS]
        self._recent[key] = window
        return window


class Quota(NamedTuple):
    """What is left of `limit` requests, and the seconds until all of them are available again."""

    name: str
    limit: int
    left: int
    seconds: int
    refused: bool = False


class RateLimits:
    """Limits the requests of each caller, and of all callers of a network together."""

    def __init__(self, counters: RateCounters, questions: int, reads: int, network_factor: int) -> None:
        """Allow a caller so many `questions` and `reads` a minute, and a network `network_factor` times as many."""
        self._counters = counters
        self._limits = {RateLimitKind.QUESTIONS: questions, RateLimitKind.READS: reads}
        self._network_factor = network_factor

    def consume(self, kind: RateLimitKind, caller: Caller) -> Quota:
        """Count a request of `caller`, or refuse it when the caller's or the network's quota is used up."""
        limit = self._limits[kind]
        quotas: list[tuple[Hashable, int]] = [((kind, caller.is_guest, caller.user_id), limit)]
        if caller.network is not None:
            quotas.append(((kind, caller.network), limit * self._network_factor))
        own, *others = self._counters.hit(quotas)
        if others and others[0].left < 0 <= own.left:
            return Quota(f"{kind}-network", limit * self._network_factor, 0, ceil(others[0].seconds), refused=True)
        return Quota(kind, limit, max(own.left, 0), ceil(own.seconds), refused=own.left < 0)


@dataclass(slots=True)
class RequestQuota:
    """The quota that one request uses; `used` is None until it was consumed."""

    limits: RateLimits
    kind: RateLimitKind
    caller: Caller
    used: Quota | None = None

    def consume(self) -> None:
        """Count the request. Raises `RateLimitedError`."""
        self.used = self.limits.consume(self.kind, self.caller)
        if self.used.refused:
            raise RateLimitedError(self.used.seconds)
