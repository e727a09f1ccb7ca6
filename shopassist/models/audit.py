"""What a recomputation of balances finds."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class DriftKind(StrEnum):
    """What does not agree with what."""

    BALANCE = "available and held credits differ from the sum of the ledger"
    HELD = "held credits differ from the sum of the open holds"
    BALANCE_AFTER = "the newest row's balance differs from the sum of the ledger"
    NO_ACCOUNT = "ledger rows or holds without an account"


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement, in credits: what the ledger (or the holds) say, and what was found instead."""

    user_id: str
    what: DriftKind
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Books:
    """What is written about one user's credits, all of it at the same instant.

    `balance` is available and held credits together, None without an account; `ledger` the sum of the transactions,
    `newest` the balance after the newest of them, None where there is none; `holds` the sum of the open holds.
    """

    user_id: str
    balance: int | None
    held: int
    ledger: int
    newest: int | None
    holds: int

    def drifts(self) -> list[Drift]:
        """Where they disagree."""
        if self.balance is None:
            return [Drift(self.user_id, DriftKind.NO_ACCOUNT, 0, self.ledger + self.holds)]
        pairs = [
            (DriftKind.BALANCE, self.ledger, self.balance),
            (DriftKind.HELD, self.holds, self.held),
            (DriftKind.BALANCE_AFTER, self.ledger, self.ledger if self.newest is None else self.newest),
        ]
        return [Drift(self.user_id, what, expected, found) for what, expected, found in pairs if expected != found]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """The outcome for the accounts behind a user id: how many there were, and every drift among them.

    `last_user_id` is where the next page begins, None after the last.
    """

    accounts: int
    drifts: tuple[Drift, ...]
    last_user_id: str | None


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The outcome for every account, and when it was known."""

    accounts: int
    drifting_accounts: int
    finished_at: datetime
