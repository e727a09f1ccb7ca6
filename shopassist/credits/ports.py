"""Ports of the credit ledger and its repositories, and what they take and return."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from shopassist.cache.models import StoredAnswer
from shopassist.credits.models import CreditTransaction, ReconciliationPage, TransactionType, UserCredits


@dataclass(slots=True)
class LedgerCounters:
    """What a process did: holds begun and how they ended, deductions, and what it refused for want of credits."""

    held: int = 0
    settled: int = 0
    voided: int = 0
    expired: int = 0
    deducted: int = 0
    refused: int = 0

    def record(self, grant: "Grant", is_hold: bool) -> "Grant":
        """Count the outcome of asking for credits, which is returned."""
        if not grant.granted:
            self.refused += not (grant.is_in_progress or grant.already_answered)
        elif is_hold:
            self.held += 1
        else:
            self.deducted += 1
        return grant


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Credits to set aside for answering one question of one user, at most once at a time.

    `question_hash` and `idempotency_key` are each unique among the user's open holds. `network` is where a guest comes
    from, as `CreditLedger.get_or_create_account` takes it.
    """

    hold_id: UUID
    user_id: str
    is_guest: bool
    amount: int = 1
    question_hash: str | None = None
    idempotency_key: str | None = None
    network: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """Outcome of a request for credits: whether it was granted, and the account afterwards.

    `is_in_progress`: refused because an open hold of the user has the same question or key. `already_answered`: a hold
    was refused because its question or key has an answer by now; None if it was granted without checking that.
    """

    granted: bool
    account: UserCredits
    is_in_progress: bool = False
    already_answered: bool | None = False


@dataclass(frozen=True, slots=True)
class OpenHold:
    """What an open hold is for."""

    question_hash: str | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """What a caller was answered under an idempotency key to a request of that hash."""

    user_id: str
    idempotency_key: str
    request_hash: str
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of a hold when its question was answered; all of it commits together."""

    hold_id: UUID
    user_id: str
    description: str
    answer: StoredAnswer | None = None
    replay: IdempotencyRecord | None = None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction by an administrator: `amount` credits, signed and not 0."""

    operation_id: UUID
    user_id: str
    amount: int
    reason: str
    actor: str
    idempotency_key: str | None = None
    request_hash: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Which rows of a history are wanted: of a type, from `since` on, and before `until`; None leaves it open."""

    transaction_type: TransactionType | None = None
    since: datetime | None = None
    until: datetime | None = None

    def matches(self, row: CreditTransaction) -> bool:
        """Whether `row` is one of them."""
        return (
            (self.transaction_type is None or row.transaction_type == self.transaction_type)
            and (self.since is None or row.timestamp >= self.since)
            and (self.until is None or row.timestamp < self.until)
        )


UNFILTERED = HistoryFilter()


@dataclass(frozen=True, slots=True)
class CompactionBatch:
    """What one batch of retention did: how many transactions it folded, and the id of the last row it looked at.

    `last_id` is None when nothing it looked at was old enough, so that going on would find nothing either.
    """

    compacted: int
    last_id: int | None


class CreditLedger(Protocol):
    """Money. Each call is atomic and durable by itself, and never part of a unit of work."""

    async def get_or_create_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        """The account, created on first sight, after a reset that was due. `is_guest` counts only for a new one.

        A new guest counts for their `network` (a keyed hash), if any; `GuestLimitError` past its most of a day.
        """

    async def register_guest(self, user_id: str) -> UserCredits:
        """Make a guest's account a registered user's, filled up to its maximum; others stay as they are."""

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        """Spend `amount` (> 0) credits now, or change nothing."""

    async def place_hold(self, request: HoldRequest) -> Grant:
        """Set credits aside for work in progress, until `settle`, `void` or the end of the hold's lifetime.

        None for what is in flight or answered by now. Where the grant leaves open whether it is answered, callers look.
        """

    async def list_open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
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

    async def reset_due_accounts(self, limit: int = 1000) -> int:
        """Refill registered accounts whose period is over, `limit` at the most; how many were moved on."""


class IdempotencyStore(Protocol):
    """Answers that are given again to whoever asks with the same idempotency key."""

    async def get(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """What the caller was answered under this key, while it is kept."""

    async def store(self, replay: IdempotencyRecord) -> None:
        """Keep an answer that cost nothing; one that is kept already stays."""

    async def delete_expired(self, limit: int = 1000) -> int:
        """Remove answers past their time, `limit` at the most; how many."""


class LedgerReconciliation(Protocol):
    """Recomputes balances, a page at a time, outside any unit of work and without holding a lock."""

    async def reconcile_page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
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
        filter_: HistoryFilter = UNFILTERED,
    ) -> list[CreditTransaction]:
        """Newest first; with `before_id` those older than that row (the keyset cursor)."""

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        """Fold transactions older than `days` into one `opening` row per user, so that sums stay true; how many."""

    async def compact_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
        """One batch of `cleanup_old_transactions`: look at the `limit` rows behind `after_id`."""


class GuestNetworks(Protocol):
    """How many new guests came from where; they are counted where their accounts are opened."""

    async def delete_old(self, limit: int = 1000) -> int:
        """Remove counts of days before yesterday (UTC), `limit` at the most; how many."""


class CreditRepositories(Protocol):
    """Repositories of credits within a unit of work."""

    @property
    def credits(self) -> CreditRepository: ...
