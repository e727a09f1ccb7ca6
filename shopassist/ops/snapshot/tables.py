"""Tables of a snapshot and the columns that a row may leave out. docs/state.md describes the format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import JSONB
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
"""Version of the format. Increase it when an older reader would misunderstand a newer file."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """How the rows of one table are written to a snapshot and read from it."""

    model: type[SQLModel]
    unique: tuple[tuple[str, ...], ...] = ()
    """Sets of columns in which no two rows agree. The first identifies a row in any database."""
    owner: str | None = None
    """The column with the user id of the row's owner."""
    is_per_user: bool = False
    """Whether rows are imported together with all other rows of their owner, or not at all."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Values of columns that a row may leave out."""
    derived: Mapping[str, str] = field(default_factory=dict)
    """Columns that a row may leave out, and the column that their value is copied from."""
    allowed_values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    credits_sql: str | None = None
    """SQL expression of the credits in a row."""
    keeps_id: bool = False
    """Whether the file contains the generated id, because other rows refer to it."""
    has_hashed_subjects: bool = False
    """Whether rows contain user ids that are hashed with the server's key."""

    @property
    def table(self) -> Table:
        table: Table = self.model.__table__  # type: ignore[attr-defined]
        return table

    @property
    def name(self) -> str:
        """Name of the table, and the `kind` of its rows."""
        return str(self.table.name)

    @property
    def staging_table(self) -> str:
        return f"staged_{self.name}"

    @property
    def has_identity(self) -> bool:
        return any(column.identity is not None for column in self.table.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns in the file, without a generated id."""
        return tuple(column.name for column in self.table.columns if not column.identity and not column.computed)

    @property
    def file_columns(self) -> tuple[str, ...]:
        """Columns in the file, with a generated id if the file has it."""
        return ("id", *self.columns) if self.keeps_id else self.columns

    def is_json(self, column: str) -> bool:
        return isinstance(self.table.columns[column].type, JSONB)

    def format_columns(self, alias: str | None = None) -> str:
        """Return the columns as a list for SQL."""
        return format_names(self.columns, alias)

    def format_key(self, alias: str | None = None) -> str:
        """Return the columns that identify a row in any database, as a list for SQL."""
        return format_names(self.unique[0] if self.unique else self.columns, alias)


def format_names(names: Iterable[str], alias: str | None = None) -> str:
    """Return quoted names as a list for SQL."""
    return ", ".join(f'{alias}."{name}"' if alias else f'"{name}"' for name in names)


TABLE_SPECS = (
    TableSpec(ConsentNotice, unique=(("purpose", "version", "locale"), ("id",)), keeps_id=True),
    TableSpec(
        UserCredits,
        unique=(("user_id",),),
        owner="user_id",
        is_per_user=True,
        defaults={"held_credits": 0},
        derived={"created_at": "last_reset_timestamp", "updated_at": "last_reset_timestamp"},
        credits_sql="available_credits::bigint + held_credits",
    ),
    TableSpec(
        CreditHold,
        unique=(("hold_id",), ("user_id", "question_hash"), ("user_id", "idempotency_key")),
        owner="user_id",
        is_per_user=True,
        credits_sql="amount",
    ),
    TableSpec(
        CreditTransaction,
        owner="user_id",
        is_per_user=True,
        defaults={"balance_after": None},
        credits_sql="amount",
        allowed_values={"transaction_type": tuple(TransactionType)},
    ),
    TableSpec(
        UserConsent,
        unique=(("user_id",),),
        owner="user_id",
        is_per_user=True,
        defaults={"terms_accepted": True, "marketing_consent": False},
        derived={"updated_at": "timestamp"},
    ),
    TableSpec(ConsentEvent, owner="user_id", is_per_user=True, allowed_values={"source": tuple(ConsentSource)}),
    TableSpec(IdempotentAnswer, unique=(("user_id", "idempotency_key"),), owner="user_id"),
    TableSpec(GuestMerge, unique=(("guest_id",),), owner="guest_id"),
    TableSpec(AdminAct, owner="target"),
    TableSpec(Erasure, unique=(("id",),), allowed_values={"asked_by": tuple(AskedBy)}, has_hashed_subjects=True),
    TableSpec(ErasedBalance, unique=(("subject_hash",),), has_hashed_subjects=True),
    TableSpec(GuestNetwork, unique=(("day", "network"),), has_hashed_subjects=True),
    TableSpec(Product, unique=(("source", "source_id"),)),
    TableSpec(QueryCache, unique=(("query_hash",),)),
)
"""Tables in the order in which they are written."""

SPECS_BY_NAME = {spec.name: spec for spec in TABLE_SPECS}
USER_SPECS = tuple(spec for spec in TABLE_SPECS if spec.is_per_user)
OTHER_SPECS = tuple(spec for spec in TABLE_SPECS if not spec.is_per_user)

EXCLUDED_TABLES = {
    "leases": "names running processes",
    "maintenance_runs": "describes jobs in this database",
    "cache_epochs": "counts cache clearings for running processes",
}
"""Tables that are not in a snapshot, and why."""
