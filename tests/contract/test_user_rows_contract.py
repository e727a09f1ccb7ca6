"""The rows of a user, read from each storage and written into the other."""

from uuid import uuid4

import pytest

from containers import Container
from shopassist.consent.models import (
    ConsentDecision,
    ConsentEvent,
    ConsentProvenance,
    ConsentSource,
    ConsentSubject,
    UserConsentCreate,
)
from shopassist.credits.models import CreditTransaction
from shopassist.credits.ports import CreditRequest, IdempotencyRecord
from shopassist.privacy.personal_data import PERSONAL_DATA_TABLES
from shopassist.rollout.rows import USER_TABLES, MemoryUserRows, PostgresUserRows, Rows
from shopassist.settings import Settings, Storage, StorageSettings
from tests.support.helpers import postgres_settings

USER, GUEST = "auth0|123", "g2wsht"


UserRows = MemoryUserRows | PostgresUserRows


def get_rows(container: Container) -> UserRows:
    """Return the rows of the storage that a container uses."""
    if container.settings().storage.storage is Storage.MEMORY:
        return MemoryUserRows(container.memory_store())
    return PostgresUserRows(container.database_manager())


@pytest.fixture
def rows_of_users(container: Container) -> UserRows:
    """Return the rows of the storage under test."""
    return get_rows(container)


@pytest.fixture
def elsewhere() -> UserRows:
    """Return the rows of another memory."""
    return get_rows(Container(settings=Settings(storage=StorageSettings(storage=Storage.MEMORY))))


async def use(container: Container) -> None:
    """Store rows of the user in every table that migrates."""
    ledger = container.credit_ledger()
    await ledger.get_or_create_account(USER, False)
    await ledger.deduct(USER, False, 3, "Credit deducted for message")
    await ledger.place_hold(CreditRequest(uuid4(), USER, False, 2, "q" * 64, "key-held"))
    await container.replays().store(IdempotencyRecord(USER, "key", "h" * 64, {"metadata": {"user_id": USER}}))
    await container.consent_service().create_consent(USER, UserConsentCreate(marketing_consent=True))
    await ledger.get_or_create_account(GUEST, True)
    await container.guest_merge_service().merge(GUEST, USER)


def without_ids(rows: Rows) -> dict[str, list[dict[str, object]]]:
    """Return the rows by table without the ids that each storage assigns."""
    return {
        table.__name__: [
            {name: getattr(row, name) for name in table.model_fields if name not in {"id", "search"}} for row in found
        ]
        for table, found in rows.items()
    }


async def test_rows_are_equal_after_migrating(
    container: Container, rows_of_users: UserRows, elsewhere: UserRows
) -> None:
    """Every column of every row is kept, there and back; writing twice has the effect of writing once."""
    await use(container)
    rows = (await rows_of_users.read([USER, "nobody"]))[USER]
    assert set(rows) == set(USER_TABLES)
    for _ in range(2):
        await elsewhere.write(USER, rows)
    moved = (await elsewhere.read([USER]))[USER]
    assert without_ids(moved) == without_ids(rows)
    for _ in range(2):
        await rows_of_users.write(USER, moved)
    assert without_ids((await rows_of_users.read([USER]))[USER]) == without_ids(rows)
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_a_history_keeps_its_order(container: Container, rows_of_users: UserRows) -> None:
    """Its rows get new ids in the same order, lower than those of later rows."""
    await use(container)
    rows = (await rows_of_users.read([USER]))[USER]
    await rows_of_users.write(USER, rows)
    await container.credit_service().deduct_credit(USER)
    history = await container.credit_service().get_user_transactions(USER)
    assert [row.amount for row in history[::-1]] == [*(row.amount for row in rows[CreditTransaction]), -1]


async def test_consent_events_stay_in_postgresql(database_url: str) -> None:
    """Writing other rows removes no consent event and adds none twice."""
    container = Container(settings=postgres_settings(database_url))
    state = get_rows(container)
    await use(container)
    rows = (await state.read([USER]))[USER]
    await container.consent_history_service().decide(
        ConsentSubject(USER, is_guest=False),
        [ConsentDecision(purpose="marketing", granted=False)],
        ConsentProvenance(ConsentSource.CONSENTS),
    )
    await state.write(USER, rows)
    events = (await state.read([USER]))[USER][ConsentEvent]
    assert [event.granted for event in events] == [*(event.granted for event in rows[ConsentEvent]), False]
    await container.shutdown()


async def test_owners_are_listed_in_pages(container: Container, rows_of_users: UserRows) -> None:
    """Each user once, by user id, even with a single row."""
    for number in range(5):
        await container.credit_ledger().get_or_create_account(f"guest-{number}", True)
    await container.consent_service().create_consent(USER, UserConsentCreate())
    assert await rows_of_users.list_owners(4) == [USER, "guest-0", "guest-1", "guest-2"]
    assert await rows_of_users.list_owners(4, "guest-2") == ["guest-3", "guest-4"]


def test_every_table_with_personal_data_migrates() -> None:
    """Except the audit log, which is in PostgreSQL."""
    assert {one.model.__name__ for one in PERSONAL_DATA_TABLES} - {table.__name__ for table in USER_TABLES} == {
        "AdminAct"
    }
