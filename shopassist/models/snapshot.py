"""A snapshot of the whole state: which tables are in it, and what a row of each may leave out.

The format is described in docs/state.md, for those who write such a file themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlalchemy import Table
from sqlmodel import SQLModel

from shopassist.models.admin_audit import AdminAct
from shopassist.models.catalog import Product
from shopassist.models.consent import UserConsent
from shopassist.models.consent_history import ConsentEvent, ConsentSource
from shopassist.models.credits import CreditHold, CreditTransaction, IdempotentAnswer, TransactionType, UserCredits
from shopassist.models.erasure import AskedBy, ErasedBalance, Erasure
from shopassist.models.guest_merge import GuestMerge
from shopassist.models.guests import GuestNetwork
from shopassist.models.notice import ConsentNotice
from shopassist.models.query_cache import QueryCache

FORMAT = 1
"""The version of the format, counted up when an older reader would misunderstand a newer file."""

NO_DEFAULTS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Kind:
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


KINDS = (
    Kind(ConsentNotice, unique=(("purpose", "version", "locale"), ("id",)), names_id=True),
    Kind(
        UserCredits,
        unique=(("user_id",),),
        owner="user_id",
        whole=True,
        defaults={"held_credits": 0},
        derived={"created_at": "last_reset_timestamp", "updated_at": "last_reset_timestamp"},
        credits="available_credits::bigint + held_credits",
    ),
    Kind(
        CreditHold,
        unique=(("hold_id",), ("user_id", "question_hash"), ("user_id", "idempotency_key")),
        owner="user_id",
        whole=True,
        credits="amount",
    ),
    Kind(
        CreditTransaction,
        owner="user_id",
        whole=True,
        defaults={"balance_after": None},
        credits="amount",
        words={"transaction_type": tuple(TransactionType)},
    ),
    Kind(
        UserConsent,
        unique=(("user_id",),),
        owner="user_id",
        whole=True,
        defaults={"terms_accepted": True, "marketing_consent": False},
        derived={"updated_at": "timestamp"},
    ),
    Kind(ConsentEvent, owner="user_id", whole=True, words={"source": tuple(ConsentSource)}),
    Kind(IdempotentAnswer, unique=(("user_id", "idempotency_key"),), owner="user_id"),
    Kind(GuestMerge, unique=(("guest_id",),), owner="guest_id"),
    Kind(AdminAct, owner="target"),
    Kind(Erasure, unique=(("id",),), words={"asked_by": tuple(AskedBy)}, keyed=True),
    Kind(ErasedBalance, unique=(("subject_hash",),), keyed=True),
    Kind(GuestNetwork, unique=(("day", "network"),), keyed=True),
    Kind(Product, unique=(("source", "source_id"),)),
    Kind(QueryCache, unique=(("query_hash",),)),
)
"""In the order in which they are written."""

BY_NAME = {kind.name: kind for kind in KINDS}
WHOLE = tuple(kind for kind in KINDS if kind.whole)
OTHERS = tuple(kind for kind in KINDS if not kind.whole)

LEFT_OUT = {
    "leases": "names of processes, which are others elsewhere",
    "maintenance_runs": "what servers did by themselves to the database that they are in",
    "cache_epochs": "counts for running processes how often a cache was cleared",
}
"""Tables that are no state to be moved, and why."""
