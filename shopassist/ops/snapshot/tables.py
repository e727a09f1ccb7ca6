"""The tables of a snapshot, and what a row of each may leave out. The format is in docs/state.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlalchemy import Table
from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.cache.models import QueryCache
from shopassist.catalog.models import Product
from shopassist.consent.models import ConsentEvent, ConsentNotice, ConsentSource, UserConsent
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    GuestNetwork,
    IdempotentAnswer,
    TransactionType,
    UserCredits,
)
from shopassist.privacy.models import AskedBy, GuestMerge

FORMAT_VERSION = 1
"""The version of the format, counted up when an older reader would misunderstand a newer file."""

NO_DEFAULTS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One table of the snapshot.

    `owner` is the column that says whose a row is; rows of `whole` kinds are imported with all their owner's or not at
    all. No two rows of a file agree in a `unique` set of columns. `defaults` are for columns that a row may leave out,
    `derived` ones are taken from another column of the row, and `words` are all that a column may say.
    """

    model: type[SQLModel]
    unique: tuple[tuple[str, ...], ...] = ()
    owner: str | None = None
    whole: bool = False
    defaults: Mapping[str, object] = field(default_factory=lambda: NO_DEFAULTS)
    derived: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    credits: str | None = None
    """What is summed up where credits are counted."""
    names_id: bool = False
    """Whether other rows name a row by its id, which is in the file then; the order of lines does elsewhere."""
    keyed: bool = False
    """Whether its subjects are hashes under the key of the server."""

    @property
    def table(self) -> Table:
        """The table."""
        table: Table = self.model.__table__  # type: ignore[attr-defined]
        return table

    @property
    def name(self) -> str:
        """The table's name, which is the row's `kind`."""
        return str(self.table.name)

    @property
    def has_identity(self) -> bool:
        """Whether the database numbers the rows."""
        return any(column.identity is not None for column in self.table.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are in the file, but for an id that the database gives."""
        return tuple(column.name for column in self.table.columns if not column.identity and not column.computed)

    @property
    def order(self) -> str:
        """The column or columns that rows are written in the order of."""
        return ", ".join(column.name for column in self.table.primary_key)

    @property
    def identified_by(self) -> tuple[str, ...]:
        """What makes a row the same wherever it is kept: a key, else all of it."""
        return self.unique[0] if self.unique else self.columns


TABLE_SPECS = (
    TableSpec(ConsentNotice, unique=(("purpose", "version", "locale"), ("id",)), names_id=True),
    TableSpec(
        UserCredits,
        unique=(("user_id",),),
        owner="user_id",
        whole=True,
        defaults={"held_credits": 0},
        derived={"created_at": "last_reset_timestamp", "updated_at": "last_reset_timestamp"},
        credits="available_credits::bigint + held_credits",
    ),
    TableSpec(
        CreditHold,
        unique=(("hold_id",), ("user_id", "question_hash"), ("user_id", "idempotency_key")),
        owner="user_id",
        whole=True,
        credits="amount",
    ),
    TableSpec(
        CreditTransaction,
        owner="user_id",
        whole=True,
        defaults={"balance_after": None},
        credits="amount",
        words={"transaction_type": tuple(TransactionType)},
    ),
    TableSpec(
        UserConsent,
        unique=(("user_id",),),
        owner="user_id",
        whole=True,
        defaults={"terms_accepted": True, "marketing_consent": False},
        derived={"updated_at": "timestamp"},
    ),
    TableSpec(ConsentEvent, owner="user_id", whole=True, words={"source": tuple(ConsentSource)}),
    TableSpec(IdempotentAnswer, unique=(("user_id", "idempotency_key"),), owner="user_id"),
    TableSpec(GuestMerge, unique=(("guest_id",),), owner="guest_id"),
    TableSpec(AdminAct, owner="target"),
    TableSpec(Erasure, unique=(("id",),), words={"asked_by": tuple(AskedBy)}, keyed=True),
    TableSpec(ErasedBalance, unique=(("subject_hash",),), keyed=True),
    TableSpec(GuestNetwork, unique=(("day", "network"),), keyed=True),
    TableSpec(Product, unique=(("source", "source_id"),)),
    TableSpec(QueryCache, unique=(("query_hash",),)),
)
"""In the order in which they are written."""

SPECS_BY_NAME = {kind.name: kind for kind in TABLE_SPECS}
USER_SPECS = tuple(kind for kind in TABLE_SPECS if kind.whole)
OTHER_SPECS = tuple(kind for kind in TABLE_SPECS if not kind.whole)

EXCLUDED_TABLES = {
    "leases": "names of processes, which are others elsewhere",
    "maintenance_runs": "what servers did by themselves to the database that they are in",
    "cache_epochs": "counts for running processes how often a cache was cleared",
}
"""Tables that are no state to be moved, and why."""
