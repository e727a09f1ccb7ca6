"""Contract of adjustments, resets at the end of a period and history filters for both storages."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from containers import Container
from shopassist.credits.models import CreditAdjustment, TransactionType
from shopassist.credits.ports import CreditRequest, HistoryFilter
from shopassist.errors import KeyReusedError, NotFoundError, OverdrawError
from tests.support.helpers import FixedClock

USER = "auth0|123"
ADMIN = "auth0|admin"


def change(amount: int, reason: str = "a mistake") -> CreditAdjustment:
    """Return a change of an account."""
    return CreditAdjustment(amount=amount, reason=reason)


@pytest.mark.parametrize(("amount", "left"), [(5, 55), (-50, 0), (2**31 - 1 - 50, 2**31 - 1)])
async def test_an_adjustment_is_recorded(container: Container, amount: int, left: int) -> None:
    """The balance changes by the amount; the ledger has amount, reason and actor."""
    await container.credit_service().get_user_credits(USER)
    adjusted, replayed = await container.adjustment_service().adjust(USER, change(amount), ADMIN)
    assert (adjusted.available_credits, adjusted.max_credits, replayed) == (left, 50, False)
    row, _ = await container.credit_service().get_user_transactions(USER)
    assert (row.transaction_type, row.amount, row.balance_after) == ("adjust", amount, left)
    assert (row.description, row.actor) == ("a mistake", ADMIN)


@pytest.mark.parametrize("amount", [-51, 2**31 - 50])
async def test_an_account_is_neither_overdrawn_nor_overfilled(container: Container, amount: int) -> None:
    """Such a change is refused and changes nothing; its key can be used again."""
    await container.credit_service().get_user_credits(USER)
    for _ in range(2):
        with pytest.raises(OverdrawError):
            await container.adjustment_service().adjust(USER, change(amount), ADMIN, "key")
    assert await container.credit_service().check_credits(USER) == 50
    assert len(await container.credit_service().get_user_transactions(USER)) == 1


async def test_held_credits_cannot_be_taken(container: Container) -> None:
    """Work in progress keeps its reserved credits."""
    await container.credit_ledger().place_hold(CreditRequest(uuid4(), USER, is_guest=False, amount=10))
    with pytest.raises(OverdrawError):
        await container.adjustment_service().adjust(USER, change(-41), ADMIN)
    adjusted, _ = await container.adjustment_service().adjust(USER, change(-40), ADMIN)
    assert adjusted.available_credits == 0
    assert (await container.audit().reconcile_page()).drifts == ()


async def test_unknown_users_are_not_adjusted(container: Container) -> None:
    """An adjustment creates no account."""
    with pytest.raises(NotFoundError):
        await container.adjustment_service().adjust("unknown", change(5), ADMIN, "key")
    assert (await container.audit().reconcile_page()).accounts == 0


async def test_a_key_adjusts_once(container: Container, clock: FixedClock) -> None:
    """For 24 hours a repeat gets the first outcome; another change is refused; keys are per actor."""
    service = container.adjustment_service()
    await container.credit_service().get_user_credits(USER)
    await container.credit_service().get_user_credits("other")
    first, _ = await service.adjust(USER, change(5), ADMIN, "key")
    await container.credit_service().deduct_credit(USER)
    assert await service.adjust(USER, change(5), ADMIN, "key") == (first, True)
    for user_id, other in ((USER, change(6)), (USER, change(5, "else")), ("other", change(5))):
        with pytest.raises(KeyReusedError):
            await service.adjust(user_id, other, ADMIN, "key")
    _, replayed = await service.adjust(USER, change(5), "auth0|second", "key")
    assert not replayed
    clock.move(hours=24, seconds=1)
    _, replayed = await service.adjust(USER, change(5), ADMIN, "key")
    assert not replayed


async def test_a_key_adjusts_once_under_concurrency(container: Container) -> None:
    """Of 20 concurrent calls with one key one adjusts, and all get its outcome."""
    await container.credit_service().get_user_credits(USER)
    service = container.adjustment_service()
    outcomes = await asyncio.gather(*[service.adjust(USER, change(5), ADMIN, "key") for _ in range(20)])
    assert [replayed for _, replayed in outcomes].count(False) == 1
    assert {adjusted.available_credits for adjusted, _ in outcomes} == {55}
    assert await container.credit_service().check_credits(USER) == 55


async def test_adjustments_and_debits_never_take_a_credit_twice(container: Container) -> None:
    """50 deductions and 50 adjustments of -1 on 50 credits: 50 succeed, and nothing drifts."""
    service = container.credit_service()
    await service.get_user_credits(USER)
    adjusting = [container.adjustment_service().adjust(USER, change(-1), ADMIN) for _ in range(50)]
    outcomes = await asyncio.gather(
        *adjusting, *[service.deduct_credit(USER) for _ in range(50)], return_exceptions=True
    )
    assert sum(outcome is True or isinstance(outcome, tuple) for outcome in outcomes) == 50
    assert all(outcome is False or isinstance(outcome, bool | tuple | OverdrawError) for outcome in outcomes)
    assert await service.check_credits(USER) == 0
    assert (await container.audit().reconcile_page()).drifts == ()


async def test_one_reset_at_the_boundary_of_a_period(container: Container, clock: FixedClock) -> None:
    """Concurrent reads and jobs at the end of a period refill once; later deductions stay."""
    service = container.credit_service()
    await service.deduct_credit(USER, amount=30)
    clock.move(hours=24)
    await asyncio.gather(
        *[service.deduct_credit(USER) for _ in range(20)],
        *[service.reset_credits() for _ in range(10)],
        *[service.check_credits(USER) for _ in range(20)],
    )
    assert await service.check_credits(USER) == 30
    resets = await service.get_user_transactions(USER, filter_=HistoryFilter(TransactionType.RESET))
    assert len(resets) == 1
    assert (await container.audit().reconcile_page()).drifts == ()


async def test_a_user_idle_for_a_month_works_at_once(container: Container, clock: FixedClock) -> None:
    """The first read resets once, and a new period begins."""
    service = container.credit_service()
    await service.deduct_credit(USER, amount=50)
    clock.move(days=30)
    assert await service.deduct_credit(USER)
    rows = await service.get_user_transactions(USER)
    assert [row.amount for row in rows] == [-1, 50, -50, 50]
    assert (await service.get_credit_status(USER)).next_reset_time == clock.time + timedelta(hours=24)


async def test_history_is_filtered(container: Container, clock: FixedClock) -> None:
    """By type, from an instant (inclusive) to another (exclusive), with cursor and limit."""
    service = container.credit_service()
    times = []
    for amount in (1, 2, 3):
        await service.deduct_credit(USER, amount=amount)
        times.append(clock.time)
        clock.move(hours=1)

    async def amounts(wanted: HistoryFilter, limit: int = 100, before_id: int | None = None) -> list[int]:
        return [row.amount for row in await service.get_user_transactions(USER, limit, before_id, wanted)]

    deducted = HistoryFilter(TransactionType.DEDUCT)
    assert await amounts(deducted) == [-3, -2, -1]
    assert await amounts(HistoryFilter(TransactionType.ALLOCATE)) == [50]
    assert await amounts(HistoryFilter(since=times[1])) == [-3, -2]
    assert await amounts(HistoryFilter(until=times[1])) == [-1, 50]
    assert await amounts(HistoryFilter(TransactionType.DEDUCT, times[1], times[2])) == [-2]
    first = await service.get_user_transactions(USER, 2, filter_=deducted)
    assert await amounts(deducted, 2, first[-1].id) == [-1]
