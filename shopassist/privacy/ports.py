"""Storage ports of personal data, erasures and guest merges."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from shopassist.consent.ports import ConsentRepositories
from shopassist.credits.models import Erasure
from shopassist.credits.ports import CreditRepositories
from shopassist.privacy.models import ErasureListEntry, ErasureRequest, GuestMerge
from shopassist.privacy.personal_data import PersonalDataTable

PrimaryKey = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PersonalDataPage:
    """Rows that are somebody's, and the key of the last one; None when there are no more."""

    rows: list[dict[str, Any]]
    last: PrimaryKey | None


@dataclass(frozen=True, slots=True)
class DataOwner:
    """Somebody of whom something is held, and since when."""

    user_id: str
    is_guest: bool | None
    since: datetime


class PersonalDataReader(Protocol):
    """Reads what is held, whatever the table."""

    async def read_page(
        self, holding: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: PrimaryKey | None = None
    ) -> PersonalDataPage:
        """The next rows by primary key, with the columns that the owner is shown."""

    async def list_owners(self, holding: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        """Whose rows there are, by user id, with the oldest of each; for holdings that have a `since`."""


class ErasureRepository(Protocol):
    """Erases people step by step. Each step is one short transaction, and may be done again after any failure."""

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        """Cut the account off: its holds are given back, it is closed under a pseudonym, and nobody opens it meanwhile.

        The unfinished erasure when there is one; the last finished one when nothing is held any more; None when
        nothing was ever held. Raises `SessionRefusedError` for a guest who names a registered account.
        """

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        """Erase up to `limit` rows of what is left; the one that finds nothing more finishes the erasure."""

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        """Erasures under way, the oldest first."""

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        """The list of erasures, the oldest first."""

    async def delete_expired(self, limit: int = 1000) -> int:
        """Remove up to `limit` balances whose period is over, and as many erasures past their lifetime; how many."""


class GuestMergeRepository(Protocol):
    """Merges of guests into registered users, within a unit of work."""

    async def lock(self, guest_id: str, user_id: str) -> None:
        """Let nobody open, erase or merge either until the unit of work ends. Raises `AccountErasedError`."""

    async def find_merge(self, guest_id: str) -> GuestMerge | None:
        """The merge of that guest."""

    async def is_guest(self, guest_id: str) -> bool | None:
        """Whether the id has a guest's account; None when it has none."""

    async def move_rows(self, holdings: Sequence[PersonalDataTable], guest_id: str, user_id: str) -> dict[str, int]:
        """Make the guest's rows the user's, but those that the user has already; how many, by holding."""

    async def insert_merge(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        """Note that the guest is merged. Raises `IntegrityError` when it was before."""


@dataclass(slots=True)
class ErasureCounters:
    """Erasures that this process finished, by who asked for them (`AskedBy`)."""

    erasures: Counter[str] = field(default_factory=Counter)

    def count_erasure(self, erasure: Erasure) -> None:
        """Count a finished erasure."""
        self.erasures[erasure.asked_by] += 1


class PrivacyRepositories(ConsentRepositories, CreditRepositories, Protocol):
    """Repositories of privacy requests within a unit of work."""

    @property
    def guest_merges(self) -> GuestMergeRepository: ...
