"""Runs a statement in batches of rows within a time limit."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

ROWS_PER_BATCH = 1000
"""Rows of one statement: tens of milliseconds, a second at the very most."""

JOB_TIME_LIMIT_SECONDS = 5.0
"""How long a turn of a job goes on; what is left then is done at its next."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a turn of a job did: how many rows or the like, whether there is more, and what an operator should know."""

    did: int = 0
    has_more: bool = False
    note: str | None = None

    @classmethod
    def cut_short(cls, did: int) -> Self:
        """What a turn did whose time was up."""
        return cls(did, has_more=True, note=TIME_LIMIT_NOTE)


async def run_in_batches(
    batch: Callable[[int], Awaitable[int]], limit: int = ROWS_PER_BATCH, seconds: float = JOB_TIME_LIMIT_SECONDS
) -> JobResult:
    """`batch` with its most of rows, again and again until it does fewer; how many altogether."""
    give_up_at = time.monotonic() + seconds
    did = 0
    while (done := await batch(limit)) >= limit:
        did += done
        if time.monotonic() >= give_up_at:
            return JobResult.cut_short(did)
    return JobResult(did + done)


TIME_LIMIT_NOTE = "its time was up; the rest is left for the next turn"
