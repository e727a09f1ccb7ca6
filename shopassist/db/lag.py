"""How far a replica is behind."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

MOST_MARKS = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the primary's log (WAL) had come to, in bytes, at the latest at an instant."""

    at: float
    as_of: datetime
    position: int


class Lag:
    """The time since the primary was last seen where the replica is now.

    All times are of one clock, this process's, so no two clocks need agree, and nothing is written. The replica's
    `pg_last_xact_replay_timestamp` will not do: with an idle primary it grows for ever, and a replica that has lost its
    primary tells the same. Bytes alone do not say for how long. Of a primary that is not seen any more nobody knows
    what the replica lacks, so then this grows.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known at first."""
        self._monotonic = monotonic
        self._marks: deque[Mark] = deque(maxlen=MOST_MARKS)
        self._newest: int | None = None
        self._reached: Mark | None = None

    @property
    def seconds(self) -> float | None:
        """What the replica shows is not older than that; None while that is not known."""
        return None if self._reached is None else self._monotonic() - self._reached.at

    @property
    def as_of(self) -> datetime | None:
        """Nothing that was committed until then is missing on the replica."""
        return None if self._reached is None else self._reached.as_of

    def primary_at(self, position: int, asked_at: float) -> None:
        """The primary, asked at that instant, said where its log has come to; all acknowledged before is in it."""
        if self._newest is not None and position < self._newest:
            # Another server took its place, without what the old one had not sent. Older marks mean nothing any more.
            self._marks.clear()
        elif position == self._newest and len(self._marks) > 1 and self._marks[-2].position == position:
            self._marks.pop()  # of an idle primary's marks the first and the last tell all
        self._newest = position
        age = self._monotonic() - asked_at
        # The instant by the wall clock is for people to read, and decides nothing.
        self._marks.append(Mark(asked_at, datetime.fromtimestamp(time.time() - age, UTC), position))

    def replica_at(self, position: int) -> None:
        """The replica has replayed the log up to there."""
        while self._marks and self._marks[0].position <= position:
            self._reached = self._marks.popleft()
