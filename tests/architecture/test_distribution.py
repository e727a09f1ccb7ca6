"""Which tables could be distributed by user (docs/scaling.md, "Citus"), derived from the models.

Citus requires that every unique constraint of a distributed table contains the distribution column, and that foreign
keys
lead to tables that are distributed alike or replicated to every node. Each exception is listed with its reason; a new
one fails.
"""

import pytest
from sqlalchemy import Table, UniqueConstraint
from sqlmodel import SQLModel

import shopassist.storage.postgres  # noqa: F401 - registers every table
from shopassist.privacy.personal_data import MOVED_ON_MERGE, PERSONAL_DATA_TABLES, OnErasure

KEY = "user_id"
BY_USER = {
    "user_credits",
    "credit_transactions",
    "credit_holds",
    "idempotent_answers",
    "user_consents",
    "consent_events",
}
"""Tables that grow with users and their questions."""

ON_EVERY_NODE = {
    "products": "the catalogue, which is read with every question and changed by imports",
    "consent_notices": "texts that consent events refer to",
}
IN_ONE_PLACE = {
    "query_cache": "by the hash of a question, without a user; could be distributed by that, or kept in Redis alone",
    "admin_audit": "about users and about administrators, few rows, and read across all of them",
    "guest_merges": "about two people each, a row for each merge",
    "erased_balances": "under a hash, from which nothing must lead to the user id",
    "erasures": "under a hash likewise, and listed across all",
    "guest_networks": "counts by network and day, before there is an account",
    "leases": "one row for the scheduler",
    "cache_epochs": "one row",
    "maintenance_runs": "a row for each run of a scheduled job",
}
WOULD_CHANGE = {
    ("credit_transactions", ("id",)): "would become (user_id, id), the index by which history is read",
    ("consent_events", ("id",)): "would become (user_id, id)",
    ("credit_holds", ("hold_id",)): "would become (user_id, hold_id); all statements on holds but one name the user",
}
"""Unique keys without the user id, which would have to include it."""

FOUND_ACROSS = {
    "remembered_adjustments": "in the answers of the administrator who adjusted: all nodes would be asked",
    "administrators_acts": "in `admin_audit`, which is in one place",
    "merged_into": "in `guest_merges`, which is in one place",
}
"""Personal data that is found by another column than the user id, or by a field inside of one."""

CHANGE_HANDS = {
    "transactions": "erasure gives them to a pseudonym",
    "remembered_answers": "merging gives a guest's to the user",
}
"""Rows with a user id that is updated: this would become a deletion on one node and an insertion on another."""


def unique_keys(table: Table) -> set[tuple[str, ...]]:
    """Return the columns of the primary key, of unique constraints and of unique indexes."""
    found = {tuple(column.name for column in table.primary_key)}
    found |= {tuple(c.name for c in one.columns) for one in table.constraints if isinstance(one, UniqueConstraint)}
    return found | {tuple(column.name for column in index.columns) for index in table.indexes if index.unique}


def test_each_table_has_its_place() -> None:
    """Tables are by user, on every node or in one place; tables with a user id of their own are by user."""
    tables = set(SQLModel.metadata.tables)
    assert BY_USER | set(ON_EVERY_NODE) | set(IN_ONE_PLACE) == tables
    assert len(BY_USER) + len(ON_EVERY_NODE) + len(IN_ONE_PLACE) == len(tables)
    owned = {str(holding.model.__tablename__) for holding in PERSONAL_DATA_TABLES}
    assert owned - BY_USER == {"admin_audit", "guest_merges"}
    assert owned >= BY_USER


@pytest.mark.parametrize("name", sorted(BY_USER))
def test_rows_by_user_name_their_user(name: str) -> None:
    """The column is never null and has the same name and type in each table."""
    column = SQLModel.metadata.tables[name].columns[KEY]
    account = SQLModel.metadata.tables["user_credits"].columns[KEY]
    assert not column.nullable
    assert str(column.type) == str(account.type)
    assert any(holding.owner_path == (KEY,) for holding in PERSONAL_DATA_TABLES if holding.model.__tablename__ == name)


def test_unique_keys_contain_the_user() -> None:
    """Every key contains the user id, except those listed, and all listed keys exist."""
    without = {(name, key) for name in BY_USER for key in unique_keys(SQLModel.metadata.tables[name]) if KEY not in key}
    assert without == set(WOULD_CHANGE)


def test_foreign_keys_lead_to_what_is_on_every_node() -> None:
    """No foreign key leads to another user's rows or to a table in one place."""
    for name in BY_USER:
        targets = {key.column.table.name for key in SQLModel.metadata.tables[name].foreign_keys}
        assert targets <= set(ON_EVERY_NODE)
    referred = {key.column.table.name for table in SQLModel.metadata.tables.values() for key in table.foreign_keys}
    assert not referred & BY_USER


def test_holdings_that_are_found_across_users_are_known() -> None:
    """Export and erasure use one node for all other personal data."""
    assert {holding.name for holding in PERSONAL_DATA_TABLES if holding.owner_path != (KEY,)} == set(FOUND_ACROSS)


def test_rows_that_change_hands_are_known() -> None:
    """The user id of all other rows is written once."""
    changing = {one.name for one in PERSONAL_DATA_TABLES if one.on_erasure is OnErasure.PSEUDONYMISE} | {MOVED_ON_MERGE}
    by_user = {one.name for one in PERSONAL_DATA_TABLES if one.model.__tablename__ in BY_USER}
    assert changing & by_user == set(CHANGE_HANDS)
