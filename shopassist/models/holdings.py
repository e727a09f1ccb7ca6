"""What is held about people: the one list that export, erasure and merging go by.

A new table is added here, to `HELD` or to `IMPERSONAL`; an architecture test fails until it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from sqlmodel import SQLModel

from shopassist.models.admin_audit import AdminAct
from shopassist.models.consent import UserConsent
from shopassist.models.consent_history import ConsentEvent
from shopassist.models.credits import CreditHold, CreditTransaction, IdempotentAnswer, UserCredits
from shopassist.models.guest_merge import GuestMerge

ACTOR = "the administrator who acted, for as long as the act must be answered for"
NOTHING: Mapping[str, str] = MappingProxyType({})


class OnErasure(Enum):
    """What becomes of rows when their owner is erased."""

    DELETE = "delete"
    PSEUDONYMISE = "pseudonymise"
    DISOWN = "disown"
    """The row stays and names nobody."""
    WITH_ACCOUNT = "with account"
    """Gone with the account, at erasure's first step."""


@dataclass(frozen=True, slots=True)
class Holding:
    """Rows of one table that are somebody's.

    `owner` leads to the user id: a column, or a column and a key of its JSON. `kind` is the column that tells guests
    from registered users; without one the rows are the account's, or, `registered_only`, no guest's. `cleared` columns
    are emptied when rows are pseudonymised, `kept` ones stay for the reason given, `withheld` ones are not exported.
    `moves`: rows become the user's when a guest is merged. `since` is when the row came about.
    """

    name: str
    table: type[SQLModel]
    on_erasure: OnErasure
    owner: tuple[str, ...] = ("user_id",)
    kind: str | None = None
    registered_only: bool = False
    cleared: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    withheld: frozenset[str] = frozenset()
    moves: bool = False
    since: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return tuple(column.name for column in self.table.__table__.primary_key)  # type: ignore[attr-defined]

    @property
    def exported(self) -> tuple[str, ...]:
        """The columns that the owner is shown."""
        return tuple(name for name in self.table.model_fields if name not in self.withheld)


HELD = (
    Holding("account", UserCredits, OnErasure.WITH_ACCOUNT, since="created_at"),
    Holding("holds", CreditHold, OnErasure.WITH_ACCOUNT),
    Holding(
        "transactions",
        CreditTransaction,
        OnErasure.PSEUDONYMISE,
        cleared=("description", "operation_id"),
        kept={
            "actor": ACTOR,
            "transaction_type": "why a row was written, one of a few words",
        },
        withheld=frozenset({"actor"}),
    ),
    Holding("consents", UserConsent, OnErasure.DELETE, registered_only=True, since="timestamp"),
    Holding("consent_history", ConsentEvent, OnErasure.DELETE, kind="is_guest", since="timestamp"),
    Holding("remembered_answers", IdempotentAnswer, OnErasure.DELETE, moves=True),
    Holding(
        "remembered_adjustments",
        IdempotentAnswer,
        OnErasure.DELETE,
        owner=("response", "user_id"),
        withheld=frozenset({"user_id", "idempotency_key", "response"}),
    ),
    Holding(
        "administrators_acts",
        AdminAct,
        OnErasure.PSEUDONYMISE,
        owner=("target",),
        cleared=("reason",),
        kept={"actor": ACTOR, "act": "what was done, one of a few words", "request_id": "a number of the server's"},
        withheld=frozenset({"actor"}),
    ),
    Holding("merged_guests", GuestMerge, OnErasure.DISOWN, registered_only=True),
    Holding("merged_into", GuestMerge, OnErasure.DELETE, owner=("guest_id",), withheld=frozenset({"user_id"})),
)
"""In the order in which they are exported and erased."""

IMPERSONAL = {
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


def held_by(is_guest: bool, had_account: bool) -> tuple[Holding, ...]:
    """What can be held about a guest or a registered user.

    A session id without an account leads to nothing that could be a registered user's of the same id.
    """
    if not is_guest:
        return HELD
    return tuple(one for one in HELD if one.kind or (had_account and not one.registered_only))
