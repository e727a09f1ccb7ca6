"""What the services ask of storage, whichever database answers.

`postgres` and `memory` implement these ports side by side; `tests/contract` holds both to the same behaviour.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from shopassist.db.accountability import AdminAudit, ConsentHistory, ConsentRepository, NoticeRepository
from shopassist.db.caching import CacheRepository
from shopassist.db.privacy import GuestMerges
from shopassist.models import CreditTransaction, Product, UserCredits
from shopassist.models.audit import AuditPage
from shopassist.models.catalog import UpsertCount, Vocabulary
from shopassist.models.criteria import Criteria
from shopassist.models.ledger import (
    EVERYTHING,
    Adjustment,
    Fold,
    Grant,
    HistoryFilter,
    HoldRequest,
    OpenHold,
    Replay,
    Settlement,
)

Session = TypeVar("Session")
Result = TypeVar("Result")


class Clock(Protocol):
    """Tells the instant that decides about resets and expiry."""

    def instant(self) -> datetime | None:
        """The aware instant to bind, or None to let the database's own `now()` decide."""


class SystemClock:
    """Leaves time to the database."""

    def instant(self) -> datetime | None:
        """None: the database's `now()` decides."""
        return None


class CreditLedger(Protocol):
    """Money. Each call is atomic and durable by itself, and never part of a unit of work."""

    async def account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        """The account, created on first sight, after a reset that was due. `is_guest` counts only for a new one.

        A new guest counts for their `network` (a keyed hash), if any; `GuestLimitError` past its most of a day.
        """

    async def register(self, user_id: str) -> UserCredits:
        """Make a guest's account a registered user's, filled up to its maximum; others stay as they are."""

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        """Spend `amount` (> 0) credits now, or change nothing."""

    async def hold(self, request: HoldRequest) -> Grant:
        """Set credits aside for work in progress, until `settle`, `void` or the end of the hold's lifetime.

        None for what is in flight or answered by now. Where the grant leaves open whether it is answered, callers look.
        """

    async def open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        """The user's open holds for that question or under that key: two at the most."""

    async def settle(self, settlement: Settlement) -> bool:
        """Turn a hold into a deduction and store what belongs to it, or, when the hold is gone, change nothing."""

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        """Give a hold back; False when it is gone."""

    async def void_expired(self, limit: int = 1000) -> int:
        """Give back holds that outlived their lifetime, `limit` at the most; how many."""

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        """Add or take credits; None, and nothing changed, when that would overdraw or there is no such account."""

    async def reset(self, user_id: str) -> None:
        """Refill one registered account now; nothing for guests and strangers."""

    async def reset_due(self, limit: int = 1000) -> int:
        """Refill registered accounts whose period is over, `limit` at the most; how many were moved on."""


class Replays(Protocol):
    """Answers that are given again to whoever asks with the same idempotency key."""

    async def find(self, user_id: str, idempotency_key: str) -> Replay | None:
        """What the caller was answered under this key, while it is kept."""

    async def remember(self, replay: Replay) -> None:
        """Keep an answer that cost nothing; one that is kept already stays."""

    async def forget_expired(self, limit: int = 1000) -> int:
        """Remove answers past their time, `limit` at the most; how many."""


class LedgerAudit(Protocol):
    """Recomputes balances, a page at a time, outside any unit of work and without holding a lock."""

    async def page(self, after_user_id: str = "", limit: int = 5000) -> AuditPage:
        """The next `limit` accounts by user id, and the ledger rows and holds in between that have no account."""


class CreditRepository(Protocol):
    """The rows behind the ledger, for reading, administration and moving data."""

    async def get_user_credits(self, user_id: str) -> UserCredits | None: ...

    async def create_user_credits(self, account: UserCredits) -> UserCredits: ...

    async def update_user_credits(self, user_id: str, **updates: Any) -> UserCredits | None: ...

    async def create_transaction(self, transaction: CreditTransaction) -> CreditTransaction: ...

    async def get_user_transactions(
        self,
        user_id: str,
        limit: int = 100,
        before_id: int | None = None,
        wanted: HistoryFilter = EVERYTHING,
    ) -> list[CreditTransaction]:
        """Newest first; with `before_id` those older than that row (the keyset cursor)."""

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        """Fold transactions older than `days` into one `opening` row per user, so that sums stay true; how many."""

    async def fold_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> Fold:
        """One batch of `cleanup_old_transactions`: look at the `limit` rows behind `after_id`."""


class CatalogRepository(Protocol):
    """Products."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        """Products that meet every hard criterion (`Criteria.misses` is empty), the best text match first."""

    async def upsert(self, products: Sequence[Product]) -> UpsertCount:
        """Insert or update by `(source, source_id)`."""

    async def count(self) -> int: ...

    async def vocabulary(self) -> Vocabulary: ...

    async def correct(self, words: Sequence[str]) -> dict[str, str]:
        """The catalogue's nearest word for each of `words` that it does not know and that may be a misspelling."""


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
    merges: GuestMerges


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
    merges: Callable[[Session], GuestMerges]

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
            merges=self.merges(session),
        )


Body = Callable[[Repositories], Awaitable[Result]]


class Transactions(Protocol):
    """Does short transactions."""

    async def run(
        self, body: Body[Result], happened: Body[Result | None] | None = None, repeatable: bool = False
    ) -> Result:
        """`body` in a unit of its own, and again in another when the database undid it for the sake of others.

        When the connection is lost under a commit, a `repeatable` body is run again, and otherwise `happened` looks
        whether it had come to pass.
        """


class UnitOfWork(Transactions, Protocol):
    """Begins short transactions: each commits on a clean exit of its block and rolls back otherwise."""

    def __call__(self) -> AbstractAsyncContextManager[Repositories]: ...

    def about(self, *user_ids: str) -> Transactions:
        """The same for what is of these people alone, wherever their state is; the one who decides that comes last."""


class GuestNetworks(Protocol):
    """How many new guests came from where; they are counted where their accounts are opened."""

    async def forget_old(self, limit: int = 1000) -> int:
        """Remove counts of days before yesterday (UTC), `limit` at the most; how many."""


class Leases(Protocol):
    """At most one holder of a name among all processes, by the database's clock."""

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        """Take or prolong the lease; False while somebody else holds it."""

    async def release(self, name: str, holder: str) -> None: ...

    async def holder(self, name: str) -> str | None:
        """Who holds it now."""
