"""All that is somebody's, read from either twin and written into the other."""

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
from shopassist.credits.ports import HoldRequest, IdempotencyRecord
from shopassist.privacy.personal_data import PERSONAL_DATA_TABLES
from shopassist.rollout.backends import USER_TABLES, Rows, UserRows
from shopassist.settings import Settings, Storage, StorageSettings

USER, GUEST = "auth0|123", "g2wsht"


@pytest.fixture
def state(container: Container) -> UserRows:
    """Of the twin under test."""
    found: UserRows = container.memory_state() if container.storage() == "memory" else container.postgres_place().state
    return found


@pytest.fixture
async def elsewhere() -> UserRows:
    """Of a memory of its own."""
    container = Container(settings=Settings(storage=StorageSettings(storage=Storage.MEMORY)))
    found: UserRows = container.memory_state()
    return found


async def use(container: Container) -> None:
    """Leave something of the user in every table that moves."""
    ledger = container.credit_ledger()
    await ledger.account(USER, False)
    await ledger.deduct(USER, False, 3, "Credit deducted for message")
    await ledger.hold(HoldRequest(uuid4(), USER, False, 2, "q" * 64, "key-held"))
    await container.replays().remember(IdempotencyRecord(USER, "key", "h" * 64, {"metadata": {"user_id": USER}}))
    await container.consent_service().create_consent(USER, UserConsentCreate(marketing_consent=True))
    await ledger.account(GUEST, True)
    await container.guest_merge_service().merge(GUEST, USER)


def without_ids(rows: Rows) -> dict[str, list[dict[str, object]]]:
    """Rows by table, but for what each twin numbers itself."""
    return {
        table.__name__: [
            {name: getattr(row, name) for name in table.model_fields if name not in {"id", "search"}} for row in found
        ]
        for table, found in rows.items()
    }


async def test_it_is_the_same_elsewhere(container: Container, state: UserRows, elsewhere: UserRows) -> None:
    """Every column of every row goes with its owner, there and back; doing it twice is doing it once."""
    await use(container)
    rows = (await state.read([USER, "nobody"]))[USER]
    assert set(rows) == set(USER_TABLES)
    for _ in range(2):
        await elsewhere.write(USER, rows)
    moved = (await elsewhere.read([USER]))[USER]
    assert without_ids(moved) == without_ids(rows)
    for _ in range(2):
        await state.write(USER, moved)
    assert without_ids((await state.read([USER]))[USER]) == without_ids(rows)
    report = await container.ledger_audit().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_a_history_keeps_its_order(container: Container, state: UserRows) -> None:
    """Its rows are numbered anew in the order in which they came, before all that follows."""
    await use(container)
    rows = (await state.read([USER]))[USER]
    await state.write(USER, rows)
    await container.credit_service().deduct_credit(USER)
    history = await container.credit_service().get_user_transactions(USER)
    assert [row.amount for row in history[::-1]] == [*(row.amount for row in rows[CreditTransaction]), -1]


async def test_what_somebody_said_is_never_taken_away(container: Container, state: UserRows) -> None:
    """Whatever is written, consent events stay, and none is there twice."""
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


async def test_owners_come_in_pages(container: Container, state: UserRows) -> None:
    """Everybody once, by user id, however little they have."""
    for number in range(5):
        await container.credit_ledger().account(f"guest-{number}", True)
    await container.consent_service().create_consent(USER, UserConsentCreate())
    assert await state.owners(4) == [USER, "guest-0", "guest-1", "guest-2"]
    assert await state.owners(4, "guest-2") == ["guest-3", "guest-4"]


def test_every_table_that_holds_something_moves() -> None:
    """But the acts of administrators, which stay where they are noted, in PostgreSQL."""
    assert {one.model.__name__ for one in PERSONAL_DATA_TABLES} - {table.__name__ for table in USER_TABLES} == {
        "AdminAct"
    }
