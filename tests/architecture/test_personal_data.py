"""Every table is registered as personal data or as free of it."""

import pytest
from sqlalchemy import JSON, Column, String, Table
from sqlmodel import SQLModel

from shopassist.db.memory import MemoryStore
from shopassist.db.ports import SystemClock
from shopassist.ops.snapshot.tables import EXCLUDED_TABLES, SPECS_BY_NAME
from shopassist.privacy.personal_data import (
    PERSONAL_DATA_TABLES,
    TABLES_WITHOUT_PERSONAL_DATA,
    OnErasure,
    PersonalDataTable,
)

TABLES = sorted(SQLModel.metadata.tables.values(), key=lambda table: table.name)
TELLING = ("user", "subject", "guest", "actor", "target", "email", "session", "address", "network", "phone", "name")
"""Parts of column names that suggest personal data."""

EXPLAINED = {
    "erased_balances.subject_hash",
    "erased_balances.is_guest",
    "erasures.subject_hash",
    "erasures.is_guest",
    "erasures.user_id",
    "erasures.pseudonym",
    "cache_epochs.name",
    "guest_networks.network",
    "leases.name",
}
"""Columns with such names, in tables without personal data, that were reviewed."""


def covering(table: Table) -> list[PersonalDataTable]:
    """Return the personal data of a table."""
    return [one for one in PERSONAL_DATA_TABLES if one.model.__table__ is table]  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_is_registered(table: Table) -> None:
    """A table is registered as personal data or with a reason why not, never both."""
    assert bool(covering(table)) != (table.name in TABLES_WITHOUT_PERSONAL_DATA), (
        f"add {table.name} to models/holdings.py"
    )


@pytest.mark.parametrize("table", [t for t in TABLES if not covering(t)], ids=lambda table: table.name)
def test_tables_without_personal_data_have_no_such_column(table: Table) -> None:
    """Columns with names that suggest personal data were reviewed."""
    telling = {f"{table.name}.{column.name}" for column in table.columns if any(t in column.name for t in TELLING)}
    assert telling <= EXPLAINED


@pytest.mark.parametrize("table", [t for t in TABLES if covering(t)], ids=lambda table: table.name)
def test_every_user_id_is_an_owner_or_kept(table: Table) -> None:
    """Each column with a user id is an owner column, or kept for a reason."""
    ids = {c.name for c in table.columns if c.name in {"user_id", "guest_id", "actor", "target"}}
    owners = {one.owner_path[0] for one in covering(table)}
    kept = {name for one in covering(table) for name in one.kept_columns}
    assert ids <= owners | kept


@pytest.mark.parametrize(
    "holding",
    [one for one in PERSONAL_DATA_TABLES if one.on_erasure is OnErasure.PSEUDONYMISE],
    ids=lambda holding: holding.name,
)
def test_text_of_rows_that_stay_is_cleared_or_kept_for_a_reason(holding: PersonalDataTable) -> None:
    """Text columns of rows that stay are cleared or kept for a reason."""

    def can_hold_words(column: Column[object]) -> bool:
        return isinstance(column.type, String | JSON)

    columns = holding.model.__table__.columns  # type: ignore[attr-defined]
    worded = {column.name for column in columns if can_hold_words(column)}
    assert worded <= {*holding.owner_path, *holding.cleared_columns, *holding.kept_columns}
    assert all(holding.kept_columns.values())
    assert all(columns[name].nullable for name in holding.cleared_columns)


def test_names_are_unique_and_columns_exist() -> None:
    """Names in an export are unique."""
    assert len({one.name for one in PERSONAL_DATA_TABLES}) == len(PERSONAL_DATA_TABLES)
    for one in PERSONAL_DATA_TABLES:
        columns = one.model.__table__.columns  # type: ignore[attr-defined]
        named = {
            one.owner_path[0],
            *one.cleared_columns,
            *one.kept_columns,
            *one.hidden_columns,
            *filter(None, (one.guest_column, one.created_column)),
        }
        assert named <= set(columns.keys())


def test_the_memory_storage_has_every_table() -> None:
    """The memory store has a table for each model."""
    store = MemoryStore(SystemClock())
    for one in PERSONAL_DATA_TABLES:
        assert store.table(one.model) == {}


def test_registered_tables_exist() -> None:
    """Every explained table and column exists."""
    assert set(TABLES_WITHOUT_PERSONAL_DATA) <= {table.name for table in TABLES}
    assert {
        name for name in EXPLAINED if name.split(".")[1] not in SQLModel.metadata.tables[name.split(".")[0]].c
    } == set()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_is_in_a_snapshot_or_excluded(table: Table) -> None:
    """`shopassist state` writes all tables except those with a reason."""
    assert (table.name in SPECS_BY_NAME) != (table.name in EXCLUDED_TABLES), f"add {table.name} to models/snapshot.py"
