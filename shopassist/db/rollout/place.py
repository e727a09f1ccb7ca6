"""A place where people's state may be, and the outcome of what was asked there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel

from shopassist.db.accountability import ConsentLookup
from shopassist.db.caching import CachedAnswers
from shopassist.db.moving import PersonalState
from shopassist.db.ports import CreditLedger, Replays, UnitOfWork
from shopassist.db.privacy import Holdings
from shopassist.errors import StorageUnavailableError

Result = TypeVar("Result")

OWN = frozenset({"id", "answered"})
"""What each side gives of its own accord, or may leave open; instants and UUIDs are such, too."""


@dataclass(frozen=True, slots=True)
class Place:
    """The ports of one side, or of the copies that memory keeps of the other."""

    state: PersonalState
    ledger: CreditLedger
    unit_of_work: UnitOfWork
    replays: Replays
    consent_lookup: ConsentLookup
    holdings: Holdings
    cached_answers: CachedAnswers


Work = Callable[[Place], Awaitable[Result]]
"""What is asked; it may be asked of two places one after the other."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """A result, or the error that was raised in its place."""

    result: Result | None = None
    error: Exception | None = None

    @classmethod
    async def of(cls, work: Work[Result], place: Place) -> "Outcome[Result]":
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

    def differs(self, other: "Outcome[Any]") -> bool:
        """Whether two sides disagree, apart from ids and instants, which each has of its own."""
        return (type(self.error), comparable(self.result)) != (type(other.error), comparable(other.result))


def comparable(value: Any) -> Any:
    """What two sides must agree on."""
    if isinstance(value, BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {key: comparable(one) for key, one in value.items() if key not in OWN}
    if isinstance(value, list | tuple):
        return [comparable(one) for one in value]
    return None if isinstance(value, datetime | UUID) else value
