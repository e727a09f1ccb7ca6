"""Ports of the database layer: the clock, and units of work over any set of repositories."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeVar

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
