"""The backends of a rollout: their ports, the rows of a user, and results to compare."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.cache.models import StoredAnswer
from shopassist.cache.ports import CachedAnswers
from shopassist.consent.models import ConsentEvent, ConsentNotice, UserConsent
from shopassist.consent.ports import ConsentLookup
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    IdempotentAnswer,
    UserCredits,
)
from shopassist.credits.ports import CreditLedger, IdempotencyStore
from shopassist.errors import StorageUnavailableError
from shopassist.privacy.models import GuestMerge
from shopassist.privacy.ports import PersonalDataReader
from shopassist.storage import UnitOfWork

Result = TypeVar("Result")

Rows = dict[type[SQLModel], list[Any]]
"""What is somebody's: rows by table, each table's in the order in which they came about."""

USER_TABLES: tuple[type[SQLModel], ...] = (
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


def find_new_events(known: Iterable[ConsentEvent], events: Iterable[ConsentEvent]) -> list[ConsentEvent]:
    """Those of `events` that `known` has not, whatever their ids, each as often as it was said."""
    left = Counter(get_event_identity(event) for event in known)
    new = []
    for event in events:
        if left[get_event_identity(event)]:
            left[get_event_identity(event)] -= 1
        else:
            new.append(event)
    return new


def get_event_identity(event: ConsentEvent) -> tuple[Any, ...]:
    """What makes a consent event the same wherever it is kept."""
    return event.is_guest, event.purpose, event.granted, event.timestamp


class UserRows(Protocol):
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


class MirrorRows(UserRows, Protocol):
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


IGNORED_FIELDS = frozenset({"id", "answered"})
"""What each side gives of its own accord, or may leave open; instants and UUIDs are such, too."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The ports of one side, or of the copies that memory keeps of the other."""

    state: UserRows
    ledger: CreditLedger
    unit_of_work: UnitOfWork
    replays: IdempotencyStore
    consent_lookup: ConsentLookup
    personal_data: PersonalDataReader
    cached_answers: CachedAnswers


BackendCall = Callable[[Backend], Awaitable[Result]]
"""What is asked; it may be asked of two places one after the other."""


def normalise_result(value: Any) -> Any:
    """What two sides must agree on."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {key: normalise_result(one) for key, one in value.items() if key not in IGNORED_FIELDS}
    if isinstance(value, list | tuple):
        return [normalise_result(one) for one in value]
    return None if isinstance(value, datetime | UUID) else value


@dataclass(frozen=True, slots=True)
class BackendResult(Generic[Result]):
    """A result, or the error that was raised in its place."""

    result: Result | None = None
    error: Exception | None = None

    @classmethod
    async def of(cls, work: BackendCall[Result], place: Backend) -> "BackendResult[Result]":
        """What comes of `work` there."""
        try:
            return cls(await work(place))
        except Exception as error:  # noqa: BLE001 - it is kept to be raised, or compared
            return cls(error=error)

    @property
    def is_unavailable(self) -> bool:
        """Whether there was no answer at all."""
        return isinstance(self.error, StorageUnavailableError | TimeoutError | OSError)

    def given(self) -> Result:
        """The result. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]

    def differs(self, other: "BackendResult[Any]") -> bool:
        """Whether two sides disagree, apart from ids and instants, which each has of its own."""
        return (type(self.error), normalise_result(self.result)) != (type(other.error), normalise_result(other.result))
