"""What moving people between the twins asks of each: all that is theirs, read at an instant and written as a whole."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlmodel import SQLModel

from shopassist.models import (
    AdminAct,
    ConsentEvent,
    ConsentNotice,
    CreditHold,
    CreditTransaction,
    Erasure,
    GuestMerge,
    IdempotentAnswer,
    UserConsent,
    UserCredits,
)
from shopassist.models.erasure import ErasedBalance
from shopassist.models.ledger import StoredAnswer

Rows = dict[type[SQLModel], list[Any]]
"""What is somebody's: rows by table, each table's in the order in which they came about."""

MOVED: tuple[type[SQLModel], ...] = (
    UserCredits,
    CreditHold,
    CreditTransaction,
    UserConsent,
    ConsentEvent,
    IdempotentAnswer,
    GuestMerge,
)
"""The tables whose rows go where their owner goes. Merges are both the guest's and the user's."""

Erased = tuple[list[Erasure], list[ErasedBalance]]


def not_among(known: Iterable[ConsentEvent], events: Iterable[ConsentEvent]) -> list[ConsentEvent]:
    """Those of `events` that `known` has not, whatever their ids, each as often as it was said."""
    left = Counter(what_was_said(event) for event in known)
    new = []
    for event in events:
        if left[what_was_said(event)]:
            left[what_was_said(event)] -= 1
        else:
            new.append(event)
    return new


def what_was_said(event: ConsentEvent) -> tuple[Any, ...]:
    """What makes a consent event the same wherever it is kept."""
    return event.is_guest, event.purpose, event.granted, event.timestamp


class PersonalState(Protocol):
    """Reads and replaces what is somebody's."""

    async def read(self, user_ids: Sequence[str]) -> dict[str, Rows]:
        """The rows of those who have any, all as they are at one instant."""

    async def write(self, user_id: str, rows: Rows) -> None:
        """Let `rows` be all that is theirs; histories get ids of their own. Doing it again changes nothing.

        No consent event or merge is ever taken away, for they prove what somebody said and did.
        """

    async def owners(self, limit: int, after_user_id: str = "") -> list[str]:
        """Those who have rows, by user id; with `after_user_id` those behind it."""

    async def note_acts(self, acts: Sequence[AdminAct]) -> None:
        """Add acts of administrators, which happened when they say."""

    async def erased(self, subject_hash: str | None = None) -> Erased:
        """What is known of those who were erased, or of one of them."""


class Copies(PersonalState, Protocol):
    """State in memory, from which what is elsewhere can be taken away."""

    async def take_away(self, user_id: str) -> Rows:
        """Remove all that is theirs alone, and give it: it is elsewhere, or will be."""

    async def learn(self, erased: Erased) -> None:
        """Know what is known elsewhere of those who were erased."""

    async def replace(self, user_id: str, rows: Rows) -> None:
        """`write`, of a copy: what is proved elsewhere, or nowhere any more, is not kept here.

        The rows themselves are kept, so whoever gives them must not use them any more.
        """

    async def disown(self, user_id: str) -> None:
        """Let nothing name somebody who was erased elsewhere."""

    async def keepers(self, user_id: str) -> list[str]:
        """Administrators of whom answers are kept that are about somebody."""

    async def know_notices(self, notices: Sequence[ConsentNotice]) -> None:
        """Have these texts, under the numbers that they have elsewhere."""

    async def acts(self) -> list[AdminAct]:
        """Acts of administrators that were noted here."""

    async def drop_acts(self, acts: Sequence[AdminAct]) -> None:
        """Remove them: they are noted elsewhere."""

    async def keep_answer(self, answer: StoredAnswer) -> None:
        """Have an answer that was stored elsewhere as well, from now on."""

    def account(self, user_id: str) -> UserCredits | None:
        """The account, as it is kept."""
