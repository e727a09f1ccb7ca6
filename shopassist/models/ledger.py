"""What the ledger is asked for and what it answers, whichever database keeps it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shopassist.models.credits import CreditTransaction, TransactionType, UserCredits


@dataclass(frozen=True, slots=True)
class CreditPolicy:
    """How many credits an account starts with, and how long a registered user's period is."""

    max_guest_credits: int = 10
    max_registered_credits: int = 50
    reset_interval: timedelta = timedelta(hours=24)
    hold_lifetime: timedelta = timedelta(seconds=60)
    replay_lifetime: timedelta = timedelta(hours=24)
    guest_accounts_per_network: int = 50
    retention_days: int = 90
    largest_amount: int = 2**31 - 1

    def max_credits(self, is_guest: bool) -> int:
        """Credits of a full account."""
        return self.max_guest_credits if is_guest else self.max_registered_credits


@dataclass(slots=True)
class LedgerFigures:
    """What a process did: holds begun and how they ended, deductions, and what it refused for want of credits."""

    held: int = 0
    settled: int = 0
    voided: int = 0
    expired: int = 0
    deducted: int = 0
    refused: int = 0

    def count(self, grant: "Grant", is_hold: bool) -> "Grant":
        """Count the outcome of asking for credits, which is returned."""
        if not grant.granted:
            self.refused += not (grant.in_flight or grant.answered)
        elif is_hold:
            self.held += 1
        else:
            self.deducted += 1
        return grant


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """Credits to set aside for answering one question of one user, at most once at a time.

    `question_hash` and `idempotency_key` are each unique among the user's open holds. `network` is where a guest comes
    from, as `CreditLedger.account` takes it.
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
    """The outcome of asking for credits: whether they were granted, and the account after it.

    `in_flight`: they were not, since an open hold of the user has the same question or key. `answered`: a hold was not,
    since its question or key has an answer by now; None when it was granted before that could be told.
    """

    granted: bool
    account: UserCredits
    in_flight: bool = False
    answered: bool | None = False


@dataclass(frozen=True, slots=True)
class OpenHold:
    """What an open hold is for."""

    question_hash: str | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer to keep, as the text of a JSON object, from the instant it is stored, for `lifetime`."""

    query_hash: str
    result: str
    lifetime: timedelta


@dataclass(frozen=True, slots=True)
class Replay:
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
    replay: Replay | None = None


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

    def wants(self, row: CreditTransaction) -> bool:
        """Whether `row` is one of them."""
        return (
            (self.transaction_type is None or row.transaction_type == self.transaction_type)
            and (self.since is None or row.timestamp >= self.since)
            and (self.until is None or row.timestamp < self.until)
        )


EVERYTHING = HistoryFilter()


@dataclass(frozen=True, slots=True)
class Fold:
    """What one batch of retention did: how many transactions it folded, and the id of the last row it looked at.

    `last_id` is None when nothing it looked at was old enough, so that going on would find nothing either.
    """

    folded: int
    last_id: int | None
