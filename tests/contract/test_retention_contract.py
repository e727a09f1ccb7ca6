"""Contract of retention and compaction for both storages."""

import asyncio
from math import inf

from containers import Container
from shopassist.credits.models import CreditTransaction
from shopassist.credits.ports import CompactionBatch
from shopassist.db.ports import JobResult
from tests.support.helpers import FixedClock

USER = "auth0|123"


async def history(container: Container, user_id: str = USER) -> list[tuple[str, int, int]]:
    """Return a user's transactions: type, amount and balance, newest first."""
    rows = await container.credit_service().get_user_transactions(user_id, limit=1000)
    return [(row.transaction_type, row.amount, row.balance_after) for row in rows]


async def compact(container: Container) -> int:
    """Compact all old transactions; return how many."""
    result: JobResult = await container.ledger_compaction().compact_within(inf)
    return result.rows


async def compact_batch(container: Container, after_id: int = 0, limit: int = 1000) -> CompactionBatch:
    """Run one batch."""
    async with container.unit_of_work()() as work:
        batch: CompactionBatch = await work.credits.compact_transactions(90, after_id, limit)
    return batch


async def test_compaction_replaces_the_earlier_opening_row(container: Container, clock: FixedClock) -> None:
    """Each user has one opening row with the sum of all older rows; the sum of the ledger stays the balance."""
    service = container.credit_service()
    await service.deduct_credit("g", is_guest=True, amount=2)
    clock.move(days=60)
    await service.deduct_credit("g", is_guest=True, amount=3)
    clock.move(days=60)
    assert await compact(container) == 2
    assert await history(container, "g") == [("deduct", -3, 5), ("opening", 8, 8)]
    clock.move(days=60)
    assert await compact(container) == 1
    assert await history(container, "g") == [("opening", 5, 5)]
    assert await compact(container) == 0
    assert await history(container, "g") == [("opening", 5, 5)]


async def test_a_sum_of_zero_leaves_no_row(container: Container, clock: FixedClock) -> None:
    """Rows that sum to 0 leave no opening row, and the account still works."""
    service = container.credit_service()
    await service.deduct_credit("g", is_guest=True, amount=10)
    clock.move(days=91)
    assert await compact(container) == 2
    assert await history(container, "g") == []
    assert await service.check_credits("g", is_guest=True) == 0


async def test_an_opening_row_has_no_operation_or_actor(container: Container, clock: FixedClock) -> None:
    """An opening row has no operation and no actor, and keeps the newest timestamp."""
    await container.credit_service().deduct_credit(USER)
    written = clock.time
    clock.move(days=91)
    await compact(container)
    [row] = await container.credit_service().get_user_transactions(USER)
    assert (row.operation_id, row.actor, row.timestamp) == (None, None, written)
    assert row.description == "Balance of older transactions"


async def test_batches_are_limited_and_return_the_last_id(container: Container, clock: FixedClock) -> None:
    """Batches of any size have the same total effect; a batch without old rows is the last."""
    service = container.credit_service()
    users = [f"user {number}" for number in range(5)]
    for _ in range(3):
        for user_id in users:
            await service.deduct_credit(user_id)
    clock.move(days=91)
    await service.deduct_credit(users[0], amount=4)
    first = await compact_batch(container, limit=7)
    assert first.compacted == 7
    folded, last_id, batches = first.compacted, first.last_id, 1
    while last_id is not None:
        batch = await compact_batch(container, last_id, limit=7)
        folded, last_id, batches = folded + batch.compacted, batch.last_id, batches + 1
    # 22 rows in windows of 7; the fourth has the newest alone.
    assert (folded, batches) == (20, 4)
    assert await history(container, users[0]) == [("deduct", -4, 46), ("reset", 3, 50), ("opening", 47, 47)]
    assert await history(container, users[1]) == [("opening", 47, 47)]
    assert await compact_batch(container) == CompactionBatch(0, (await service.get_user_transactions(users[0]))[0].id)
    assert await compact_batch(container, after_id=2**62) == CompactionBatch(0, None)


async def test_compaction_keeps_the_sum_despite_a_wrong_balance(container: Container, clock: FixedClock) -> None:
    """Compaction neither hides nor causes drift: the opening row is the sum of the rows, even if a balance is wrong."""
    await container.credit_service().get_user_credits(USER)
    async with container.unit_of_work()() as work:
        await work.credits.create_transaction(
            CreditTransaction(user_id=USER, transaction_type="adjust", amount=5, timestamp=clock.time, balance_after=99)
        )
    before = (await container.audit().reconcile_page()).drifts
    clock.move(days=91)
    assert await compact(container) == 2
    assert await history(container) == [("opening", 55, 99)]
    assert (await container.audit().reconcile_page()).drifts == before != ()


async def test_concurrent_compaction_and_deductions_keep_the_sum(container: Container, clock: FixedClock) -> None:
    """After concurrent compaction and deductions every balance is the sum of its ledger."""
    service = container.credit_service()
    users = [f"user {number}" for number in range(10)]
    for user_id in users * 3:
        await service.deduct_credit(user_id)
    clock.move(days=91)
    spending = [service.deduct_credit(user_id) for user_id in users * 20]
    folding = [compact(container) for _ in range(4)]
    outcomes = await asyncio.gather(*spending, *folding)
    assert sum(int(outcome) for outcome in outcomes[:200]) == 200
    assert sum(int(outcome) for outcome in outcomes[200:]) == 40
    assert {row[0][2] for row in [await history(container, user_id) for user_id in users]} == {30}
    page = await container.audit().reconcile_page()
    assert (page.accounts, page.drifts) == (10, ())
