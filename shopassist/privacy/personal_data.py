"""Registry of the tables with personal data, and the ports that read, erase and move it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Table
from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.consent.models import ConsentEvent, UserConsent
from shopassist.consent.ports import ConsentRepositories
from shopassist.credits.models import CreditHold, CreditTransaction, Erasure, IdempotentAnswer, UserCredits
from shopassist.credits.ports import CreditRepositories
from shopassist.privacy.models import ErasureListEntry, ErasureRequest, GuestMerge

ACTOR_KEPT_REASON = "the administrator who acted, for as long as the act must be answered for"


class OnErasure(Enum):
    """Treatment of rows when their owner is erased."""

    DELETE = "delete"
    PSEUDONYMISE = "pseudonymise"
    ANONYMISE = "anonymise"
    """Keep the row without an owner."""


@dataclass(frozen=True, slots=True)
class PersonalDataTable:
    """Rows of one table that are personal data of their owner.

    `owner_path` leads to the owner's id: a column, or a column and a key of its JSON. `guest_column` tells guests from
    registered users; without it rows belong to the account, or with `registered_only` never to a guest.
    `cleared_columns` are set to null in pseudonymised rows, `kept_columns` stay for the given reason, and
    `hidden_columns` are not exported. `created_column` holds the time of creation.
    """

    name: str
    model: type[SQLModel]
    on_erasure: OnErasure
    owner_path: tuple[str, ...] = ("user_id",)
    guest_column: str | None = None
    registered_only: bool = False
    cleared_columns: tuple[str, ...] = ()
    kept_columns: Mapping[str, str] = field(default_factory=dict)
    hidden_columns: frozenset[str] = frozenset()
    created_column: str | None = None

    @property
    def sql_table(self) -> Table:
        """The table as SQLAlchemy knows it."""
        sql_table: Table = self.model.__table__  # type: ignore[attr-defined]
        return sql_table

    @property
    def exported_columns(self) -> tuple[str, ...]:
        """Names of the exported columns."""
        return tuple(name for name in self.model.model_fields if name not in self.hidden_columns)

    def build_erased_values(self, pseudonym: str) -> dict[str, Any] | None:
        """Return the values that replace personal data in an erased row, or None when the row is deleted."""
        if self.on_erasure is OnErasure.DELETE:
            return None
        owner = None if self.on_erasure is OnErasure.ANONYMISE else pseudonym
        return {self.owner_path[0]: owner, **dict.fromkeys(self.cleared_columns)}


MOVED_ON_MERGE = "remembered_answers"
"""Name of the only rows that a merge moves from a guest to the user."""

PERSONAL_DATA_TABLES = (
    # The first step of an erasure deletes the account and its holds.
    PersonalDataTable("account", UserCredits, OnErasure.DELETE, created_column="created_at"),
    PersonalDataTable("holds", CreditHold, OnErasure.DELETE),
    PersonalDataTable(
        "transactions",
        CreditTransaction,
        OnErasure.PSEUDONYMISE,
        cleared_columns=("description", "operation_id"),
        kept_columns={
            "actor": ACTOR_KEPT_REASON,
            "transaction_type": "why a row was written, one of a few words",
        },
        hidden_columns=frozenset({"actor"}),
    ),
    PersonalDataTable("consents", UserConsent, OnErasure.DELETE, registered_only=True, created_column="timestamp"),
    PersonalDataTable(
        "consent_history", ConsentEvent, OnErasure.DELETE, guest_column="is_guest", created_column="timestamp"
    ),
    PersonalDataTable(MOVED_ON_MERGE, IdempotentAnswer, OnErasure.DELETE),
    PersonalDataTable(
        "remembered_adjustments",
        IdempotentAnswer,
        OnErasure.DELETE,
        owner_path=("response", "user_id"),
        hidden_columns=frozenset({"user_id", "idempotency_key", "response"}),
    ),
    PersonalDataTable(
        "administrators_acts",
        AdminAct,
        OnErasure.PSEUDONYMISE,
        owner_path=("target",),
        cleared_columns=("reason",),
        kept_columns={
            "actor": ACTOR_KEPT_REASON,
            "act": "what was done, one of a few words",
            "request_id": "a number of the server's",
        },
        hidden_columns=frozenset({"actor"}),
    ),
    PersonalDataTable("merged_guests", GuestMerge, OnErasure.ANONYMISE, registered_only=True),
    PersonalDataTable(
        "merged_into", GuestMerge, OnErasure.DELETE, owner_path=("guest_id",), hidden_columns=frozenset({"user_id"})
    ),
)
"""All personal data, in the order of export and erasure."""

TABLES_WITHOUT_PERSONAL_DATA = {
    "consent_notices": "the texts that people are shown",
    "cache_epochs": "counts how often a cache was cleared",
    "erased_balances": "a keyed hash and a number, forgotten with the running period",
    "erasures": "a keyed hash; the user id goes when the erasure is finished",
    "guest_networks": "how many guests came from a network, under a keyed hash, forgotten after two days",
    "leases": "names of processes",
    "maintenance_runs": "what scheduled work has done, by numbers",
    "products": "the catalogue",
    "query_cache": "answers by the hash of a question, made of the catalogue and of criteria, never of a person",
}
"""Tables without personal data, with the reason."""


def get_personal_data_tables(is_guest: bool, had_account: bool) -> tuple[PersonalDataTable, ...]:
    """Return the tables that can hold data of a guest or a registered user.

    A guest without an account has rows only in tables that tell guests from registered users of the same id.
    """
    if not is_guest:
        return PERSONAL_DATA_TABLES
    return tuple(
        table for table in PERSONAL_DATA_TABLES if table.guest_column or (had_account and not table.registered_only)
    )


@dataclass(frozen=True, slots=True)
class PersonalDataPage:
    """Page of rows, and the key of its last row (a value, or a tuple of several); None when there are no more rows."""

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
