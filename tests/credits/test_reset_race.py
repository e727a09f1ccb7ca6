"""At the end of a period there is exactly one reset per user, whatever calls arrive in which process."""

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest

from tests.credits.conftest import StoredCredits, World

SEEDS = 1000
BATCH = 50
FULL = 50


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
async def test_there_is_one_reset_per_user_and_period(world: World, first: int) -> None:
    """For calls of each kind at the end of a period: one full reset, and later deductions stay."""
    randoms = {f"auth0|{seed}": Random(seed) for seed in range(first, first + BATCH)}  # noqa: S311 - to be repeated
    spent_before = {user_id: random.randint(1, FULL) for user_id, random in randoms.items()}
    service = world.containers[0].credit_service()
    await asyncio.gather(*[service.deduct_credit(user_id, amount=spent) for user_id, spent in spent_before.items()])
    for period in (1, 2):
        world.clock.move(hours=24)
        callers = [call for user_id, random in randoms.items() for call in callers_of(world, user_id, random)]
        Random(first + period).shuffle(callers)  # noqa: S311
        granted = [user_id for user_id, amount in await asyncio.gather(*callers) for _ in range(amount)]
        for user_id in randoms:
            stored = await world.read_credits(user_id)
            stored.check()
            resets = [number for number, row in enumerate(stored.rows) if row.transaction_type == "reset"]
            assert len(resets) == period
            assert stored.account
            assert stored.account.last_reset_timestamp == world.clock.time
            assert spending_since(stored, resets[-1]) == granted.count(user_id)
            assert stored.account.available_credits == FULL - granted.count(user_id)
        # What must be refilled at the next boundary.
        await asyncio.gather(*[service.deduct_credit(user_id) for user_id in randoms])


def spending_since(stored: StoredCredits, reset: int) -> int:
    """Return the sum of deductions after a reset, which must have filled the account."""
    assert stored.rows[reset].balance_after == FULL
    return -sum(row.amount for row in stored.rows[reset + 1 :])


def callers_of(world: World, user_id: str, random: Random) -> list[Coroutine[Any, Any, tuple[str, int]]]:
    """Return a read and a random number of other calls; each returns the user and the amount deducted."""

    async def call(kind: str, process: int, amount: int, turns: int) -> tuple[str, int]:
        for _ in range(turns):
            await asyncio.sleep(0)
        container = world.containers[process % len(world.containers)]
        service = container.credit_service()
        if kind == "spend":
            return user_id, amount if await service.deduct_credit(user_id, amount=amount) else 0
        if kind == "look":
            await service.get_user_credits(user_id)
        elif kind == "reset due":
            await container.credit_ledger().reset_due_accounts(7)
        else:
            await service.reset_credits()
        return user_id, 0

    kinds = ["look", *random.choices(["spend", "look", "reset due", "reset all"], [8, 4, 1, 1], k=random.randint(1, 8))]
    return [call(kind, random.randint(0, 1), random.randint(1, 5), random.randint(0, 20)) for kind in kinds]
