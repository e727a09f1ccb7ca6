"""Runs a statement in batches of rows within a time limit."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

ROWS_PER_BATCH = 1000
"""Rows of one statement, which takes tens of milliseconds and never more than a second."""

JOB_TIME_LIMIT_SECONDS = 5.0
"""Time limit of one run of a job. The next run continues with the rest."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """Result of one run of a job: rows processed, whether more are left, and a note for the operator."""

    rows: int = 0
    has_more: bool = False
    note: str | None = None

    @classmethod
    def incomplete(cls, rows: int) -> Self:
        """Return the result of a run that reached its time limit."""
        return cls(rows, has_more=True, note=TIME_LIMIT_NOTE)


async def run_in_batches(
    batch: Callable[[int], Awaitable[int]], limit: int = ROWS_PER_BATCH, seconds: float = JOB_TIME_LIMIT_SECONDS
) -> JobResult:
    """Call `batch(limit)` until it processes fewer rows than `limit`, or `seconds` have passed; return the total."""
    give_up_at = time.monotonic() + seconds
    total = 0
    while (rows := await batch(limit)) >= limit:
        total += rows
        if time.monotonic() >= give_up_at:
            return JobResult.incomplete(total)
    return JobResult(total + rows)


TIME_LIMIT_NOTE = "its time was up; the rest is left for the next turn"
