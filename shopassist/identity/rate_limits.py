"""Count requests per caller and per network in one-minute windows."""

import time
from collections.abc import Callable, Hashable
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


@dataclass(slots=True)
class Window:
    """Requests of a caller or a network until a time."""

    ends_at: float
    requests: int = 0


class Quota(NamedTuple):
    """What is left of `limit` requests, and the seconds until all of them are available again."""

    name: str
    limit: int
    left: int
    seconds: int
    refused: bool = False


class RateLimits:
    """Limits the requests of each caller, and of all callers of a network together, in this process.

    A request takes constant time. Callers not seen in the current or previous generation are dropped, so that made-up
    names do not fill the memory.
    """

    def __init__(
        self,
        questions: int,
        reads: int,
        network_factor: int,
        clock: Callable[[], float] = time.monotonic,
        max_callers: int = MAX_COUNTED_CALLERS,
    ) -> None:
        """Allow a caller so many `questions` and `reads` a minute, and a network `network_factor` times as many.

        Keep at most `max_callers` windows per generation; `clock` returns seconds.
        """
        self._limits = {RateLimitKind.QUESTIONS: questions, RateLimitKind.READS: reads}
        self._network_factor = network_factor
        self._clock = clock
        self._max_callers = max_callers
        self._recent: dict[Hashable, Window] = {}
        self._previous: dict[Hashable, Window] = {}
        self._generation_started_at = clock()

    def consume(self, kind: RateLimitKind, caller: Caller) -> Quota:
        """Count a request of `caller`, or refuse it when the caller's or the network's quota is used up."""
        limit, now = self._limits[kind], self._clock()
        quotas = [(kind.value, limit, self._get_window((kind, caller.is_guest, caller.user_id), now))]
        if caller.network is not None:
            window = self._get_window((kind, caller.network), now)
            quotas.append((f"{kind}-network", limit * self._network_factor, window))
        full = [quota for quota in quotas if quota[2].requests >= quota[1]]
        if not full:
            for _, _, window in quotas:
                window.requests += 1
        name, limit, window = (full or quotas)[0]
        return Quota(name, limit, limit - window.requests, ceil(window.ends_at - now), refused=bool(full))

    def _get_window(self, key: Hashable, now: float) -> Window:
        if now - self._generation_started_at > WINDOW_SECONDS or len(self._recent) >= self._max_callers:
            self._previous, self._recent, self._generation_started_at = self._recent, {}, now
        window = self._recent.get(key) or self._previous.pop(key, None)
        if window is None or window.ends_at <= now:
            window = Window(now + WINDOW_SECONDS)
        self._recent[key] = window
        return window


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
