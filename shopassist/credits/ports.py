"""Ports of the credit ledger and its repositories, and what they take and return."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import structlog

from shopassist.cache.models import StoredAnswer
from shopassist.credits.models import (
    CreditAdjusted,
    CreditTransaction,
    ReconciliationPage,
    TransactionType,
    UserCredits,
)
from shopassist.db.resilience import get_request_start
from shopassist.errors import GuestLimitError
from shopassist.logging import LogLimit

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CreditRequest:
    """Credits to reserve for answering a question or, if not `is_hold`, to deduct at once.

    `operation_id` becomes the id of the hold. `question_hash` and `idempotency_key` are each unique among the user's
    open holds. `network` is the guest's client network, as in `CreditLedger.get_or_create_account`. `started_at` is
    when the caller's request was received, by `time.monotonic()`.
    """

    operation_id: UUID
    user_id: str
    is_guest: bool
    amount: int = 1
    question_hash: str | None = None
    idempotency_key: str | None = None
    network: str | None = None
    is_hold: bool = True
    description: str | None = None
    started_at: float = field(default_factory=get_request_start)


@dataclass(frozen=True, slots=True)
class Grant:
    """Outcome of a request for credits: whether it was granted, and the account afterwards.

    `is_in_progress`: refused because an open hold of the user has the same question or key. `already_answered`: a hold
    was refused because its question or key has an answer by now; None if it was granted without checking that.
    `instant`: when a hold was decided, by the storage's clock.
    """

    granted: bool
    account: UserCredits
    is_in_progress: bool = False
    already_answered: bool | None = False
    instant: datetime | None = None


GUEST_LIMIT_LOG_SECONDS = 3600
GUEST_LIMIT_ADVICE = (
    "a client network has reached GUEST_ACCOUNTS_PER_NETWORK_PER_DAY: if it is a proxy in front of this server, name "
    "it in TRUSTED_PROXIES; if many people share it, raise the limit"
)


@dataclass(slots=True)
class LedgerCounters:
    """Counts, in one process, of holds placed and how they ended, deductions, and refusals for lack of credits.

    `guest_log` limits the log of refused guests.
    """

    held: int = 0
    settled: int = 0
    voided: int = 0
    expired: int = 0
    deducted: int = 0
    refused: int = 0
    guest_log: LogLimit = field(default_factory=LogLimit)

    def refuse_guest(self, now: datetime) -> GuestLimitError:
        """Return the error for a new guest of a network at its limit, which is over at midnight UTC; log it hourly."""
        if count := self.guest_log.count("guest", GUEST_LIMIT_LOG_SECONDS):
            logger.warning(GuestLimitError.code, reason=GUEST_LIMIT_ADVICE, count=count)
        today = now.astimezone(UTC)
        midnight = datetime.combine(today.date() + timedelta(days=1), datetime.min.time(), UTC)
        return GuestLimitError(retry_after=ceil((midnight - today).total_seconds()))

    def record(self, grant: Grant, is_hold: bool) -> Grant:
        """Count the outcome of a request for credits, and return it."""
        if not grant.granted:
            self.refused += not (grant.is_in_progress or grant.already_answered)
        elif is_hold:
            self.held += 1
        else:
            self.deducted += 1
        return grant


class OpenHold(NamedTuple):
    """The question and key of an open hold."""

    question_hash: str | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The response to a request with an idempotency key, and the hash of the request."""

    user_id: str
    idempotency_key: str
    request_hash: str
    response: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a hold, and what to store with it in the same transaction.

    `description` is that of the deduction; None returns the credits, as `CreditLedger.void` does.
    """

    hold_id: UUID
    user_id: str
    description: str | None = None
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

    def build_response(self, account: UserCredits) -> CreditAdjusted:
        """Return the response; `account` is the account after the adjustment."""
        return CreditAdjusted(
            user_id=self.user_id,
            amount=self.amount,
            reason=self.reason,
            actor=self.actor,
            available_credits=account.available_credits,
            max_credits=account.max_credits,
        )


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    """Selects transactions of a type, with `since` <= timestamp < `until`; None does not restrict."""

    transaction_type: TransactionType | None = None
    since: datetime | None = None
    until: datetime | None = None

    def build_conditions(self, row: Any) -> list[Any]:
        """Return the conditions on a transaction as booleans, or as SQL if `row` is the class itself."""
        conditions = []
        if self.transaction_type is not None:
            conditions.append(row.transaction_type == self.transaction_type.value)
        if self.since is not None:
            conditions.append(row.timestamp >= self.since)
        if self.until is not None:
            conditions.append(row.timestamp < self.until)
        return conditions


UNFILTERED = HistoryFilter()


@dataclass(frozen=True, slots=True)
class CompactionBatch:
    """Result of one batch of compaction: the number of transactions replaced, and the id of the last row read.

    `last_id` is None if no row of the batch was old enough. Ids grow with time, so later batches have no old rows.
    """

    compacted: int
    last_id: int | None


class CreditLedger(Protocol):
    """Moves credits. Each call is atomic and durable by itself, never part of a unit of work."""

    async def get_or_create_account(self, user_id: str, is_guest: bool, network: str | None = None) -> UserCredits:
        """Return the account, after a reset that was due. `is_guest` only matters for a new account.

        A new guest counts towards the daily limit of their `network` (a keyed hash), if given. Raises `GuestLimitError`
        when that is reached.
        """

    async def register_guest(self, user_id: str) -> UserCredits:
        """Turn a guest's account into a registered user's and fill it up. Leave other accounts unchanged."""

    async def deduct(self, user_id: str, is_guest: bool, amount: int, description: str) -> Grant:
        """Deduct `amount` (> 0) credits, or change nothing."""

    async def place_hold(self, request: CreditRequest) -> Grant:
        """Reserve credits until `settle`, `void` or the end of the hold's lifetime.

        Not granted if the question is in progress or already answered. If `already_answered` is None, the caller must
        check the cache.
        """

    async def list_open_holds(self, user_id: str, question_hash: str, idempotency_key: str | None) -> list[OpenHold]:
        """Return the user's open holds for the question or with the key: at most two."""

    async def settle(self, settlement: Settlement) -> bool:
        """Turn a hold into a deduction and store its answer. Return False, changing nothing, if the hold is gone."""

    async def void(self, hold_id: UUID, user_id: str) -> bool:
        """Return held credits to the account. Return False if the hold is gone."""

    async def void_expired(self, limit: int = 1000) -> int:
        """Void up to `limit` holds past their lifetime; return how many."""

    async def adjust(self, adjustment: Adjustment) -> UserCredits | None:
        """Add or remove credits. Return None, changing nothing, if that would overdraw or there is no account."""

    async def reset(self, user_id: str) -> None:
        """Refill a registered account now. Do nothing for guests and unknown users."""

    async def reset_due_accounts(self, limit: int = 1000) -> int:
        """Refill up to `limit` registered accounts due for a reset; return how many."""

    async def delete_old_guest_counts(self, limit: int = 1000) -> int:
        """Delete up to `limit` counts of new guests of days before yesterday (UTC); return how many."""


class IdempotencyStore(Protocol):
    """Stored responses to requests with an idempotency key."""

    async def get(self, user_id: str, idempotency_key: str) -> IdempotencyRecord | None:
        """Return the response stored for the key, unless it has expired."""

    async def store(self, record: IdempotencyRecord) -> None:
        """Store a response that cost nothing, unless one is stored for the key already."""

    async def delete_expired(self, limit: int = 1000) -> int:
        """Delete up to `limit` expired responses; return how many."""


class LedgerReconciliation(Protocol):
    """Recomputes balances in pages, outside any unit of work and without locks."""

    async def reconcile_page(self, after_user_id: str = "", limit: int = 5000) -> ReconciliationPage:
        """Reconcile the next `limit` accounts by user id, and rows and holds without account between them."""


class CreditRepository(Protocol):
    """The rows of the ledger, for reading, administration and data migration."""

    async def get_user_credits(self, user_id: str) -> UserCredits | None: ...

    async def create_user_credits(self, account: UserCredits) -> UserCredits: ...

    async def update_user_credits(self, user_id: str, **updates: Any) -> UserCredits | None: ...

    async def create_transaction(self, transaction: CreditTransaction) -> CreditTransaction: ...

    async def get_user_transactions(
        self, user_id: str, limit: int = 100, before_id: int | None = None, filter_: HistoryFilter = UNFILTERED
    ) -> list[CreditTransaction]:
        """Return transactions, newest first; with `before_id` those older than that row (keyset pagination)."""

    async def cleanup_old_transactions(self, days: int = 90) -> int:
        """Compact transactions older than `days` into one `opening` row per user with their sum; return how many."""

    async def compact_transactions(self, days: int, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
        """Run one batch of `cleanup_old_transactions` over the next `limit` rows after `after_id`."""


async def compact_all(repository: CreditRepository, days: int) -> int:
    """Run all batches of `cleanup_old_transactions`; return the number of transactions compacted."""
    compacted = 0
    last_id: int | None = 0
    while last_id is not None:
        batch = await repository.compact_transactions(days, last_id)
        compacted, last_id = compacted + batch.compacted, batch.last_id
    return compacted


class CreditRepositories(Protocol):
    """Repositories of credits within a unit of work."""

    @property
    def credits(self) -> CreditRepository: ...
