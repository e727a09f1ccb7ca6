"""Registry of the tables with personal data, used by export, erasure and guest merges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from sqlmodel import SQLModel

from shopassist.audit.models import AdminAct
from shopassist.consent.models import ConsentEvent, UserConsent
from shopassist.credits.models import CreditHold, CreditTransaction, IdempotentAnswer, UserCredits
from shopassist.privacy.models import GuestMerge

ACTOR_KEPT_REASON = "the administrator who acted, for as long as the act must be answered for"
NO_KEPT_COLUMNS: Mapping[str, str] = MappingProxyType({})


class OnErasure(Enum):
    """What becomes of rows when their owner is erased."""

    DELETE = "delete"
    PSEUDONYMISE = "pseudonymise"
    ANONYMISE = "anonymise"
    """The row stays and names nobody."""
    WITH_ACCOUNT = "with account"
    """Gone with the account, at erasure's first step."""


@dataclass(frozen=True, slots=True)
class PersonalDataTable:
    """Rows of one table that are somebody's.

    `owner` leads to the user id: a column, or a column and a key of its JSON. `kind` is the column that tells guests
    from registered users; without one the rows are the account's, or, `registered_only`, no guest's. `cleared` columns
    are emptied when rows are pseudonymised, `kept` ones stay for the reason given, `withheld` ones are not exported.
    `moves`: rows become the user's when a guest is merged. `since` is when the row came about.
    """

    name: str
    model: type[SQLModel]
    on_erasure: OnErasure
    owner_path: tuple[str, ...] = ("user_id",)
    guest_column: str | None = None
    registered_only: bool = False
    cleared_columns: tuple[str, ...] = ()
    kept_columns: Mapping[str, str] = field(default_factory=lambda: NO_KEPT_COLUMNS)
    hidden_columns: frozenset[str] = frozenset()
    moves_on_merge: bool = False
    created_column: str | None = None

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return tuple(column.name for column in self.model.__table__.primary_key)  # type: ignore[attr-defined]

    @property
    def exported_columns(self) -> tuple[str, ...]:
        """The columns that the owner is shown."""
        return tuple(name for name in self.model.model_fields if name not in self.hidden_columns)


PERSONAL_DATA_TABLES = (
    PersonalDataTable("account", UserCredits, OnErasure.WITH_ACCOUNT, created_column="created_at"),
    PersonalDataTable("holds", CreditHold, OnErasure.WITH_ACCOUNT),
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
    PersonalDataTable("remembered_answers", IdempotentAnswer, OnErasure.DELETE, moves_on_merge=True),
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
"""In the order in which they are exported and erased."""

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
"""Tables that hold nothing about a person, and why that is so."""


def get_personal_data_tables(is_guest: bool, had_account: bool) -> tuple[PersonalDataTable, ...]:
    """What can be held about a guest or a registered user.

    A session id without an account leads to nothing that could be a registered user's of the same id.
    """
    if not is_guest:
        return PERSONAL_DATA_TABLES
    return tuple(one for one in PERSONAL_DATA_TABLES if one.guest_column or (had_account and not one.registered_only))
