"""What services know of the database: the clock, units of work, and statements in batches of rows."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, TypeVar

Result = TypeVar("Result")
Repositories = TypeVar("Repositories")
Repositories_co = TypeVar("Repositories_co", covariant=True)
TransactionBody = Callable[[Repositories], Awaitable[Result]]


class Clock(Protocol):
    """Tells the instant that decides about resets and expiry."""

    def instant(self) -> datetime | None:
        """Return the aware instant to bind, or None to let the database's own `now()` decide."""


class SystemClock:
    """Leaves time to the database."""

    def instant(self) -> datetime | None:
        """None: the database's `now()` decides."""
        return None


UserHashFunction = Callable[[str], str]
"""A user id under the key of erased subjects, as 64 hex characters."""


class Transactions(Protocol[Repositories_co]):
    """Runs short transactions over the repositories that a service needs."""

    async def run(
        self,
        body: Callable[[Repositories_co], Awaitable[Result]],
        happened: Callable[[Repositories_co], Awaitable[Result | None]] | None = None,
        repeatable: bool = False,
    ) -> Result:
        """Run `body` in a transaction, and again when the database rolled it back in favour of others.

        When the connection is lost during a commit, a `repeatable` body is run again; otherwise `happened` looks
        whether it was committed.
        """


class UnitOfWork(Transactions[Repositories_co], Protocol[Repositories_co]):
    """Begins short transactions: each commits on a clean exit of its block and rolls back otherwise."""

    def __call__(self) -> AbstractAsyncContextManager[Repositories_co]: ...


class ReplicaReads(Protocol[Repositories_co]):
    """Short read-only transactions with data that may be a few seconds old. Never for credits or consent decisions."""

    async def run(self, body: Callable[[Repositories_co], Awaitable[Result]]) -> Result:
        """Return what `body` reads; while the primary is down it may be older, which is noted (`Freshness`)."""


ROWS_PER_BATCH = 1000
"""Rows of one statement, which takes tens of milliseconds and never more than a second."""

JOB_TIME_LIMIT_SECONDS = 5.0
"""Time limit of one run of a job. The next run continues with the rest."""

TIME_LIMIT_NOTE = "its time was up; the rest is left for the next turn"


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
