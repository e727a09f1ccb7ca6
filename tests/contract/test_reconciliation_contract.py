"""Contract of reconciliation for both storages."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from uuid import uuid4

import pytest

from containers import Container
from shopassist.credits.models import CreditTransaction, Drift, DriftKind
from shopassist.credits.ports import CreditRequest, Settlement
from shopassist.storage.repositories import Repositories
from tests.support.helpers import FixedClock

Plant = Callable[[Repositories], Awaitable[object]]


async def all_drifts(container: Container, limit: int = 2) -> list[Drift]:
    """Return every drift, in pages of a few accounts."""
    drifts: list[Drift] = []
    last: str | None = ""
    while last is not None:
        page = await container.audit().reconcile_page(last, limit)
        drifts += page.drifts
        last = page.last_user_id
    return drifts


def row(user_id: str, amount: int, balance_after: int) -> CreditTransaction:
    """Return a ledger row for direct insertion."""
    return CreditTransaction(user_id=user_id, transaction_type="adjust", amount=amount, balance_after=balance_after)


@pytest.mark.parametrize(
    ("plant", "drifts"),
    [
        (
            lambda work: work.credits.update_user_credits("c", available_credits=49),
            [Drift("c", DriftKind.BALANCE, 50, 49)],
        ),
        (
            lambda work: work.credits.update_user_credits("c", available_credits=49, held_credits=1),
            [Drift("c", DriftKind.HELD, 0, 1)],
        ),
        (
            lambda work: work.credits.create_transaction(row("e", 5, 55)),
            [Drift("e", DriftKind.BALANCE, 55, 50)],
        ),
        (
            lambda work: work.credits.create_transaction(row("a", 5, 50)),
            [Drift("a", DriftKind.BALANCE, 55, 50), Drift("a", DriftKind.BALANCE_AFTER, 55, 50)],
        ),
        (
            lambda work: work.credits.create_transaction(row("bb", 7, 7)),
            [Drift("bb", DriftKind.NO_ACCOUNT, 0, 7)],
        ),
        (
            lambda work: work.credits.create_transaction(row("zz", 7, 7)),
            [Drift("zz", DriftKind.NO_ACCOUNT, 0, 7)],
        ),
    ],
    ids=["account", "held", "ledger", "balance after", "no account in between", "no account behind the last"],
)
async def test_each_kind_of_drift_is_found(container: Container, plant: Plant, drifts: list[Drift]) -> None:
    """Each drift has its user, the expected and the found value; other users have none."""
    for user_id in "abcde":
        await container.credit_service().get_user_credits(user_id)
    assert await all_drifts(container) == []
    async with container.unit_of_work()() as work:
        await plant(work)
    assert await all_drifts(container) == drifts
    assert await all_drifts(container, limit=100) == drifts


async def test_ledger_operations_cause_no_drift(container: Container, clock: FixedClock) -> None:
    """Holds, settlements, resets, registration and compaction cause no drift."""
    service, ledger = container.credit_service(), container.credit_ledger()
    holds = [CreditRequest(uuid4(), "u", is_guest=False, question_hash=f"{number}") for number in range(3)]
    for hold in holds:
        await ledger.place_hold(hold)
    await ledger.settle(Settlement(holds[0].operation_id, "u", "spent"))
    await ledger.void(holds[1].operation_id, "u")
    await service.get_caller_account("g", is_guest=True)
    await service.get_caller_account("g", is_guest=False)
    await service.deduct_credit("s", is_guest=True, amount=10)
    clock.move(days=100)
    await container.ledger_compaction().compact_within(inf)
    await service.reset_credits()
    assert await all_drifts(container) == []


async def test_concurrent_work_causes_no_drift(container: Container, clock: FixedClock) -> None:
    """Reconciliation concurrent with holds, settlements, deductions and compaction finds no drift."""
    service, ledger = container.credit_service(), container.credit_ledger()
    users = [f"user {number}" for number in range(6)]
    for user_id in users:
        await service.deduct_credit(user_id)
    clock.move(days=100)

    async def question(user_id: str) -> None:
        hold = CreditRequest(uuid4(), user_id, is_guest=False)
        await ledger.place_hold(hold)
        await ledger.settle(Settlement(hold.operation_id, user_id, "spent"))
        await service.deduct_credit(user_id)

    async def verify() -> list[Drift]:
        return [drift for _ in range(5) for drift in await all_drifts(container)]

    work = [question(user_id) for user_id in users * 10]
    _, _, *found = await asyncio.gather(
        asyncio.gather(*work), container.ledger_compaction().compact_within(inf), *[verify() for _ in range(4)]
    )
    assert found == [[], [], [], []]


async def test_the_last_result_is_kept(container: Container) -> None:
    """The status is empty before the first run; afterwards it counts accounts and drifting accounts."""
    audit = container.ledger_reconciliation()
    assert audit.build_status() == {"verified": "not run here"}
    for user_id in "abc":
        await container.credit_service().get_user_credits(user_id)
    async with container.unit_of_work()() as work:
        await work.credits.create_transaction(row("b", 1, 60))
    report = await audit.verify()
    assert report is not None
    assert (report.accounts, report.drifting_accounts) == (3, 1)
    assert audit.build_status()["drifting_accounts"] == 1
