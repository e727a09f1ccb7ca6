"""Contract of `CreditService` for both storages."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from containers import Container
from shopassist.cache.models import StoredAnswer
from shopassist.credits.models import CreditTransaction, TransactionType
from shopassist.credits.ports import CreditRequest, Grant, IdempotencyRecord, Settlement
from shopassist.errors import InvalidInputError, SessionRefusedError
from shopassist.settings import CreditSettings, Settings, Storage
from tests.support.helpers import FixedClock

Reset = Callable[[Container], Awaitable[None]]
USER = "auth0|123"
GUEST = "g2wsht"


async def balance_of_ledger(container: Container, user_id: str) -> int:
    """Return the sum of a user's transactions."""
    return sum(row.amount for row in await container.credit_service().get_user_transactions(user_id, limit=1000))


async def test_first_request_creates_the_account(container: Container) -> None:
    """A guest starts with 10 credits, a registered user with 50, each recorded as an allocation."""
    service = container.credit_service()
    guest, user = await service.get_user_credits(GUEST, is_guest=True), await service.get_user_credits(USER)
    assert (guest.available_credits, guest.max_credits, guest.is_guest) == (10, 10, True)
    assert (user.available_credits, user.max_credits, user.is_guest) == (50, 50, False)
    [row] = await service.get_user_transactions(USER)
    assert (row.transaction_type, row.amount, row.balance_after) == ("allocate", 50, 50)


async def test_concurrent_first_requests_create_one_account(container: Container) -> None:
    """50 concurrent first requests create one account and one allocation."""
    accounts = await asyncio.gather(*[container.credit_service().get_user_credits(USER) for _ in range(50)])
    assert {account.available_credits for account in accounts} == {50}
    assert len(await container.credit_service().get_user_transactions(USER)) == 1


async def test_concurrent_debits_never_spend_a_credit_twice(container: Container) -> None:
    """Of 200 concurrent deductions from 10 credits exactly 10 succeed, and the ledger sums to 0."""
    service = container.credit_service()
    outcomes = await asyncio.gather(*[service.deduct_credit(GUEST, is_guest=True) for _ in range(200)])
    assert outcomes.count(True) == 10
    assert await service.check_credits(GUEST, is_guest=True) == 0
    assert await balance_of_ledger(container, GUEST) == 0
    balances = [row.balance_after for row in await service.get_user_transactions(GUEST)]
    assert balances == list(range(11))


@pytest.mark.parametrize(
    ("amount", "outcome", "left", "rows"),
    [
        (-1, False, 50, 1),
        (0, True, 50, 1),
        (3, True, 47, 2),
        (50, True, 0, 2),
        (51, False, 50, 1),
        (2**63, False, 50, 1),
    ],
)
async def test_deduct_by_amount(container: Container, amount: int, outcome: bool, left: int, rows: int) -> None:
    """Negative or excessive amounts change nothing, 0 costs nothing, others are deducted and recorded."""
    service = container.credit_service()
    assert await service.deduct_credit(USER, amount=amount) is outcome
    assert await service.check_credits(USER) == left
    history = await service.get_user_transactions(USER)
    assert len(history) == rows
    if rows == 2:
        assert (history[0].transaction_type, history[0].amount) == ("deduct", -amount)


async def test_a_due_reset_refills_on_read(container: Container, clock: FixedClock) -> None:
    """24 hours after the last reset, the next read refills a registered account and records it."""
    service = container.credit_service()
    await service.deduct_credit(USER, amount=20)
    clock.move(hours=24, seconds=-1)
    assert await service.check_credits(USER) == 30
    clock.move(seconds=1)
    assert await service.deduct_credit(USER)
    account = await service.get_user_credits(USER)
    assert (account.available_credits, account.last_reset_timestamp) == (49, clock.time)
    assert [row.amount for row in await service.get_user_transactions(USER)] == [-1, 20, -20, 50]
    assert await balance_of_ledger(container, USER) == 49


async def test_guests_are_never_reset(container: Container, clock: FixedClock) -> None:
    """Neither time, nor the job, nor a reset by user id refills a guest."""
    service = container.credit_service()
    await service.deduct_credit(GUEST, is_guest=True, amount=10)
    clock.move(days=30)
    await service.reset_credits()
    await service.reset_credits(GUEST)
    assert await service.check_credits(GUEST, is_guest=True) == 0


async def test_reset_without_user_id_resets_due_accounts(container: Container, clock: FixedClock) -> None:
    """Without a user id, exactly the due accounts are refilled."""
    service = container.credit_service()
    await service.deduct_credit("early", amount=5)
    clock.move(hours=23)
    await service.deduct_credit("late", amount=5)
    clock.move(hours=1)
    await service.reset_credits()
    async with container.unit_of_work()() as work:
        early, late = await work.credits.get_user_credits("early"), await work.credits.get_user_credits("late")
    assert early
    assert late
    assert (early.available_credits, late.available_credits) == (50, 45)


async def test_a_reset_that_adds_nothing_moves_the_period_on(container: Container, clock: FixedClock) -> None:
    """It records no transaction, but the next reset is a day later."""
    service = container.credit_service()
    await service.get_user_credits(USER)
    clock.move(hours=30)
    await service.reset_credits(USER)
    assert len(await service.get_user_transactions(USER)) == 1
    status = await service.get_credit_status(USER)
    assert status.next_reset_time == clock.time + timedelta(hours=24)


async def test_a_reset_never_lowers_a_balance(container: Container) -> None:
    """A balance above the maximum stays."""
    service = container.credit_service()
    await service.get_user_credits(USER)
    async with container.unit_of_work()() as work:
        await work.credits.update_user_credits(USER, available_credits=80)
        await work.credits.create_transaction(
            CreditTransaction(user_id=USER, transaction_type=TransactionType.ALLOCATE, amount=30, balance_after=80)
        )
    await service.reset_credits(USER)
    assert await service.check_credits(USER) == 80


async def test_a_reset_of_an_unknown_user_does_nothing(container: Container) -> None:
    """A reset creates no account."""
    await container.credit_service().reset_credits("unknown")
    async with container.unit_of_work()() as work:
        assert await work.credits.get_user_credits("unknown") is None


async def test_status(container: Container, clock: FixedClock) -> None:
    """Guests cannot reset and have no next time; registered users can, a day after the last reset."""
    service = container.credit_service()
    guest = await service.get_credit_status(GUEST, is_guest=True)
    user = await service.get_credit_status(USER)
    assert (guest.can_reset, guest.next_reset_time) == (False, None)
    assert (user.can_reset, user.next_reset_time) == (True, clock.time + timedelta(hours=24))


async def test_history_is_newest_first_by_keyset(container: Container) -> None:
    """Pages by cursor join to the whole, newest first, even while rows are added."""
    service = container.credit_service()
    for _ in range(6):
        await service.deduct_credit(USER)
    whole = [row.id for row in await service.get_user_transactions(USER)]
    assert whole == sorted(whole, key=lambda row_id: row_id or 0, reverse=True)
    first = await service.get_user_transactions(USER, limit=3)
    await service.deduct_credit(USER)
    rest = await service.get_user_transactions(USER, before_id=first[-1].id)
    assert [row.id for row in [*first, *rest]] == whole


@pytest.mark.parametrize("user_id", ["", "x" * 256, "a\x00b", "\ud800"])
async def test_ids_that_cannot_be_stored_are_refused(container: Container, user_id: str) -> None:
    """An id that cannot be stored raises a clear error."""
    with pytest.raises(InvalidInputError, match="user_id"):
        await container.credit_service().get_user_credits(user_id)


async def test_holds_settle_void_and_expire(container: Container, clock: FixedClock) -> None:
    """Holds leave the ledger sum unchanged; settling deducts them, voiding or expiry returns them, each once."""
    ledger = container.credit_ledger()
    settled, voided, expired = uuid4(), uuid4(), uuid4()
    for hold_id in (settled, voided, expired):
        assert (await ledger.place_hold(CreditRequest(hold_id, USER, is_guest=False))).granted
    assert await balance_of_ledger(container, USER) == 50
    assert await container.credit_service().check_credits(USER) == 47
    assert await ledger.settle(Settlement(settled, USER, "spent"))
    assert not await ledger.settle(Settlement(settled, USER, "spent"))
    assert await ledger.void(voided, USER)
    assert not await ledger.settle(Settlement(voided, USER, "spent"))
    assert await ledger.void_expired() == 0
    clock.move(seconds=60)
    assert await ledger.void_expired() == 1
    assert await container.credit_service().check_credits(USER) == 49 == await balance_of_ledger(container, USER)


async def test_no_hold_for_answered_questions(container: Container, clock: FixedClock) -> None:
    """No hold is placed for a question with a valid answer or a key with a stored response.

    Other questions and callers get theirs, and so do the same ones after expiry.
    """
    ledger, replay = container.credit_ledger(), IdempotencyRecord(USER, "k", "q", {"a": 1})

    async def hold(user_id: str, question: str | None, key: str | None = None) -> Grant:
        grant: Grant = await ledger.place_hold(CreditRequest(uuid4(), user_id, False, 1, question, key))
        return grant

    first = CreditRequest(uuid4(), USER, is_guest=False, question_hash="q", idempotency_key="k")
    assert (await ledger.place_hold(first)).granted
    answer = StoredAnswer("q", "{}", timedelta(hours=1))
    assert await ledger.settle(Settlement(first.operation_id, USER, "spent", answer, replay))
    for user_id, question, key in ((USER, "q", None), ("other", "q", None), (USER, "another", "k"), (USER, None, "k")):
        grant = await hold(user_id, question, key)
        assert (grant.granted, grant.is_in_progress, grant.already_answered) == (False, False, True)
        assert grant.account.held_credits == 0
    for user_id, question, key in (("other", "another", "k"), (USER, "another", "l"), (USER, None, None)):
        grant = await hold(user_id, question, key)
        assert (grant.granted, grant.already_answered) == (True, False)
    assert not (await hold(USER, "another")).already_answered
    clock.move(hours=1)
    assert (await hold(USER, "q")).already_answered
    clock.move(seconds=1)
    assert (await hold(USER, "q")).granted
    assert (await hold(USER, "third", "k")).already_answered
    clock.move(hours=23)
    assert (await hold(USER, "third", "k")).granted


async def test_a_reset_includes_held_credits(container: Container, clock: FixedClock) -> None:
    """Available and held credits together are refilled to the maximum, so that a later void does not exceed it."""
    ledger, service = container.credit_ledger(), container.credit_service()
    hold_id = uuid4()
    await service.deduct_credit(USER, amount=10)
    await ledger.place_hold(CreditRequest(hold_id, USER, is_guest=False))
    clock.move(hours=24)
    assert await service.check_credits(USER) == 49
    await ledger.void(hold_id, USER)
    assert await service.check_credits(USER) == 50 == await balance_of_ledger(container, USER)


async def reset_by_read(container: Container) -> None:
    """Read the balance."""
    await container.credit_service().check_credits(USER)


async def reset_by_deduction(container: Container) -> None:
    """Spend a credit at once."""
    assert await container.credit_service().deduct_credit(USER)


async def reset_by_hold(container: Container) -> None:
    """Hold a credit and give it back."""
    request = CreditRequest(uuid4(), USER, is_guest=False)
    assert (await container.credit_ledger().place_hold(request)).granted
    await container.credit_ledger().void(request.operation_id, USER)


async def reset_by_job(container: Container) -> None:
    """Run the job."""
    await container.credit_service().reset_credits()


async def reset_by_name(container: Container) -> None:
    """Reset the user by name."""
    await container.credit_service().reset_credits(USER)


@pytest.mark.parametrize("reset", [reset_by_read, reset_by_deduction, reset_by_hold, reset_by_job, reset_by_name])
@pytest.mark.parametrize(("maximum", "balance"), [(80, 80), (20, 30)])
async def test_a_changed_allowance_counts_from_the_next_reset(
    container: Container, settings: Settings, clock: FixedClock, reset: Reset, maximum: int, balance: int
) -> None:
    """After a restart with another MAX_REGISTERED_CREDITS; no balance is lowered, and guests keep what they had."""
    service = container.credit_service()
    await service.deduct_credit(USER, amount=20)
    await service.deduct_credit(GUEST, is_guest=True, amount=4)
    allowances = CreditSettings(max_registered_credits=maximum, max_guest_credits=maximum)
    changed = Container(settings=settings.model_copy(update={"credits": allowances}))
    changed.clock.override(clock)
    if settings.storage.storage is Storage.MEMORY:
        changed.memory_store.override(container.memory_store())
    try:
        service = changed.credit_service()
        account = await service.get_user_credits(USER)
        assert (account.available_credits, account.max_credits) == (30, 50)
        clock.move(hours=24)
        await reset(changed)
        status = await service.get_credit_status(USER)
        assert (status.max_credits, status.next_reset_time) == (maximum, clock.time + timedelta(hours=24))
        spent = 1 if reset is reset_by_deduction else 0
        assert status.available_credits == balance - spent == await balance_of_ledger(changed, USER)
        guest = await service.get_user_credits(GUEST, is_guest=True)
        assert (guest.available_credits, guest.max_credits) == (6, 10)
    finally:
        await changed.shutdown()


async def test_a_guest_session_cannot_reach_a_registered_account(container: Container) -> None:
    """Its credits are neither shown to a guest with its id nor held for one."""
    service = container.credit_service()
    await service.get_user_credits("someone")
    with pytest.raises(SessionRefusedError):
        await service.get_caller_account("someone", is_guest=True)
    assert not (await container.credit_ledger().place_hold(CreditRequest(uuid4(), "someone", is_guest=True))).granted


async def test_a_registered_user_takes_over_a_guests_account_of_the_same_id(container: Container) -> None:
    """The registered user gets the account, filled up to a registered user's credits."""
    service = container.credit_service()
    await service.deduct_credit("someone", is_guest=True, amount=4)
    account = await service.get_caller_account("someone", is_guest=False)
    assert (account.available_credits, account.max_credits, account.is_guest) == (50, 50, False)
    assert await balance_of_ledger(container, "someone") == 50


async def test_old_transactions_are_compacted(container: Container, clock: FixedClock) -> None:
    """Rows older than the limit become one opening row; the sum stays, and a second run finds nothing."""
    service = container.credit_service()
    await service.deduct_credit(USER, amount=5)
    await service.deduct_credit(USER, amount=6)
    clock.move(days=91)
    await service.deduct_credit(USER, amount=7)
    async with container.unit_of_work()() as work:
        assert await work.credits.cleanup_old_transactions(days=90) == 3
        assert await work.credits.cleanup_old_transactions(days=90) == 0
    history = await service.get_user_transactions(USER)
    assert [(row.transaction_type, row.amount) for row in history] == [("deduct", -7), ("reset", 11), ("opening", 39)]
    assert await balance_of_ledger(container, USER) == 43 == await service.check_credits(USER)
