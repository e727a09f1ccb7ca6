"""Repositories of all nouns, and the units of work that give access to them."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from shopassist.audit.ports import AdminAudit
from shopassist.cache.ports import CacheRepository
from shopassist.catalog.ports import CatalogRepository
from shopassist.consent.ports import ConsentHistory, ConsentRepository, NoticeRepository
from shopassist.credits.ports import CreditRepository
from shopassist.privacy.ports import GuestMergeRepository

Session = TypeVar("Session")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Repositories:
    """What can be done within one unit of work."""

    credits: CreditRepository
    consents: ConsentRepository
    consent_history: ConsentHistory
    notices: NoticeRepository
    admin_audit: AdminAudit
    cache: CacheRepository
    catalog: CatalogRepository
    guest_merges: GuestMergeRepository


@dataclass(frozen=True, slots=True)
class RepositoryFactories(Generic[Session]):
    """How each repository is built within a session."""

    credits: Callable[[Session], CreditRepository]
    consents: Callable[[Session], ConsentRepository]
    consent_history: Callable[[Session], ConsentHistory]
    notices: Callable[[Session], NoticeRepository]
    admin_audit: Callable[[Session], AdminAudit]
    cache: Callable[[Session], CacheRepository]
    catalog: Callable[[Session], CatalogRepository]
    guest_merges: Callable[[Session], GuestMergeRepository]

    def within(self, session: Session) -> Repositories:
        """All of them, speaking within `session`."""
        return Repositories(
            credits=self.credits(session),
            consents=self.consents(session),
            consent_history=self.consent_history(session),
            notices=self.notices(session),
            admin_audit=self.admin_audit(session),
            cache=self.cache(session),
            catalog=self.catalog(session),
            guest_merges=self.guest_merges(session),
        )


TransactionBody = Callable[[Repositories], Awaitable[Result]]


class Transactions(Protocol):
    """Does short transactions."""

    async def run(
        self,
        body: TransactionBody[Result],
        happened: TransactionBody[Result | None] | None = None,
        repeatable: bool = False,
    ) -> Result:
        """`body` in a unit of its own, and again in another when the database undid it for the sake of others.

        When the connection is lost under a commit, a `repeatable` body is run again, and otherwise `happened` looks
        whether it had come to pass.
        """


class UnitOfWork(Transactions, Protocol):
    """Begins short transactions: each commits on a clean exit of its block and rolls back otherwise."""

    def __call__(self) -> AbstractAsyncContextManager[Repositories]: ...


class ReplicaReads(Protocol):
    """Short transactions that only read, where what they find may be a few seconds old. Never for money or consent."""

    async def run(self, body: TransactionBody[Result]) -> Result:
        """What `body` finds; with the primary gone it may be older, which is noted (`freshness`)."""
