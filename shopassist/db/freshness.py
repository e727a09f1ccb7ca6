"""Reads that may lag, and whether what a request was told may be old, since the primary was gone."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from shopassist.db.ports import Body

Result = TypeVar("Result")


class LaggingReads(Protocol):
    """Short transactions that only read, where what they find may be a few seconds old. Never for money or consent."""

    def about(self, *user_ids: str) -> "LaggingReads":
        """The same for what is of these people alone, as `UnitOfWork.about`."""

    async def run(self, body: Body[Result]) -> Result:
        """What `body` finds; with the primary gone it may be older, which is noted (`freshness`)."""


@dataclass(slots=True)
class Freshness:
    """Of what one request read. `as_of`: nothing committed until then is missing; None where that is not known."""

    is_stale: bool = False
    as_of: datetime | None = None


_current: ContextVar[Freshness | None] = ContextVar("freshness", default=None)


@contextmanager
def freshness() -> Iterator[Freshness]:
    """What is read in this block is noted here."""
    noted = Freshness()
    token = _current.set(noted)
    try:
        yield noted
    finally:
        _current.reset(token)


def note_stale(as_of: datetime | None) -> None:
    """Something was read that may be old; of several the oldest counts."""
    noted = _current.get()
    if noted is None:
        return
    is_older = as_of is None or (noted.as_of is not None and as_of < noted.as_of)
    if is_older or not noted.is_stale:
        noted.as_of = as_of
    noted.is_stale = True
