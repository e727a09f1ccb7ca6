"""Count requests per caller and per network in one-minute windows."""

import time
from collections.abc import Callable, Hashable, Sequence
from enum import StrEnum
from math import ceil
from typing import NamedTuple, Protocol

from shopassist.identity.caller import Caller

WINDOW_SECONDS = 60
MAX_COUNTED_CALLERS = 100_000
"""Callers whose windows are kept in a generation; they are let go a generation at a time."""


class RateLimitKind(StrEnum):
    """What is counted apart: questions, and whatever else the API is asked."""

    QUESTIONS = "questions"
    READS = "reads"


class WindowCount(NamedTuple):
    """How many requests are left in a window, and for how many seconds it goes on. -1: it was full before this one."""

    left: int
    seconds: float


class RateCounters(Protocol):
    """Where requests are counted. A store that all servers share can take the place of each process's own."""

    async def hit(self, quotas: Sequence[tuple[Hashable, int]]) -> list[WindowCount]:
        """Count one more for each key, or, where one has had its most already, for none of them."""


class MemoryRateCounters:
    """Implements `RateCounters` for one process, in constant time.

    What is not asked for in the present generation or the one before is forgotten, so invented names do not pile up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = MAX_COUNTED_CALLERS) -> None:
        """`clock` tells seconds; `most` callers are kept in a generation."""
        self._clock = clock
        self._most = most
        self._recent: dict[Hashable, list[float]] = {}
        self._before: dict[Hashable, list[float]] = {}
        self._turned_at = clock()

    async def hit(self, quotas: Sequence[tuple[Hashable, int]]) -> list[WindowCount]:
        now = self._clock()
        if now - self._turned_at > WINDOW_SECONDS or len(self._recent) >= self._most:
            self._before, self._recent, self._turned_at = self._recent, {}, now
        windows = [(self._window(key, now), most) for key, most in quotas]
        full = False
        for window, most in windows:
            full = full or window[0] >= most
        counts = []
        for window, most in windows:
            left = most - int(window[0])
            if full:
                counts.append(WindowCount(left if left > 0 else -1, window[1] - now))
            else:
                window[0] += 1
                counts.append(WindowCount(left - 1, window[1] - now))
        return counts

    def _window(self, key: Hashable, now: float) -> list[float]:
        """The number of requests and the end of the key's window, a new one where that is over."""
        window = self._recent.get(key)
        if window is None:
            window = self._before.pop(key, None)
            if window is None:
                window = [0, now + WINDOW_SECONDS]
            self._recent[key] = window
        if window[1] <= now:
            window[:] = [0, now + WINDOW_SECONDS]
        return window


class Quota(NamedTuple):
    """What a caller has left of a quota of `most` requests, and in how many seconds it is whole again."""

    name: str
    most: int
    left: int
    seconds: int
    refused: bool = False


class RateLimits:
    """Counts requests of each caller, and of all callers of a network together."""

    def __init__(self, counters: RateCounters, questions: int, reads: int, network_factor: int) -> None:
        """`questions` and `reads` of one caller in a minute; a network may `network_factor` times as many."""
        self._counters = counters
        self._most = {RateLimitKind.QUESTIONS: questions, RateLimitKind.READS: reads}
        self._factor = network_factor

    async def spend(self, kind: RateLimitKind, caller: Caller) -> Quota:
        """Count a request of `caller`, or, where they or all of their network have had their most, refuse it."""
        most = self._most[kind]
        quotas: list[tuple[Hashable, int]] = [((kind, caller.is_guest, caller.user_id), most)]
        if caller.network is not None:
            quotas.append(((kind, caller.network), most * self._factor))
        own, *others = await self._counters.hit(quotas)
        if others and others[0].left < 0 <= own.left:
            return Quota(f"{kind}-network", most * self._factor, 0, ceil(others[0].seconds), refused=True)
        return Quota(kind, most, max(own.left, 0), ceil(own.seconds), refused=own.left < 0)
