"""Storage ports of personal data, erasures and guest merges."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from shopassist.consent.ports import ConsentRepositories
from shopassist.credits.models import Erasure
from shopassist.credits.ports import CreditRepositories
from shopassist.privacy.models import ErasureListEntry, ErasureRequest, GuestMerge
from shopassist.privacy.personal_data import PersonalDataTable


@dataclass(frozen=True, slots=True)
class PersonalDataPage:
    """Page of rows, and the key of its last row, after which the next page starts; None when there are no more rows."""

    rows: list[dict[str, Any]]
    last: Any


@dataclass(frozen=True, slots=True)
class DataOwner:
    """User with rows in a table, and the time of the oldest row. `is_guest` is None where the table does not tell."""

    user_id: str
    is_guest: bool | None
    since: datetime


class PersonalDataReader(Protocol):
    """Reads any table of personal data."""

    async def read_page(
        self, table: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: Any = None
    ) -> PersonalDataPage:
        """Return the owner's next rows by primary key, with the exported columns."""

    async def list_owners(self, table: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        """Return owners by user id, from a table with a `created_column`."""


class ErasureRepository(Protocol):
    """Erases users in steps. Each step is one short transaction, which may be repeated after any failure."""

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        """Release the account's holds and close the account under a pseudonym; it cannot be opened until the end.

        Return the unfinished erasure when there is one, the last finished one when nothing is held any more, and None
        when nothing was ever held. Raises `SessionRefusedError` for a guest who names a registered account.
        """

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        """Erase up to `limit` more rows; the call that finds fewer finishes the erasure."""

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        """Return unfinished erasures, the oldest first."""

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        """Return the list of erasures, the oldest first."""

    async def delete_expired(self, limit: int = 1000) -> int:
        """Delete up to `limit` expired balances and as many expired erasures; return how many."""


class GuestMergeRepository(Protocol):
    """Merges of guests into registered users, within a unit of work."""

    async def lock(self, guest_id: str, user_id: str) -> None:
        """Lock both ids against opening, erasure and merges. Raises `AccountErasedError`."""

    async def find_merge(self, guest_id: str) -> GuestMerge | None:
        """Return the merge of the guest."""

    async def move_answers(self, guest_id: str, user_id: str) -> int:
        """Move the guest's stored answers to the user, except those whose key the user has; return how many."""

    async def insert_merge(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        """Insert the merge. Raises `IntegrityError` when the guest was merged before."""


class PrivacyRepositories(ConsentRepositories, CreditRepositories, Protocol):
    """Repositories of privacy requests within a unit of work."""

    @property
    def guest_merges(self) -> GuestMergeRepository: ...
