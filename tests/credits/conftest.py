"""Fixtures: a ledger in either storage, used by one or two processes, and its rows."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from sqlmodel import col, select

from containers import Container
from shopassist.credits.models import CreditHold, CreditTransaction, UserCredits
from shopassist.credits.ports import CreditLedger
from shopassist.settings import Settings, Storage
from tests.support.helpers import FixedClock, relax_time_limits


@dataclass(frozen=True, slots=True)
class StoredCredits:
    """The stored rows of one user."""

    account: UserCredits | None
    rows: list[CreditTransaction]
    open_holds: int
    held: int

    def check(self) -> None:
        """Check that nothing is overdrawn, and that balances match the sum of the rows and each running balance."""
        if self.account is None:
            assert (self.rows, self.open_holds) == ([], 0)
            return
        assert self.account.available_credits >= 0
        assert self.account.held_credits == self.held
        balance = 0
        for row in self.rows:
            balance += row.amount
            assert row.balance_after == balance, self.rows
        assert self.account.available_credits + self.account.held_credits == balance, self.rows


class World:
    """One store and the containers over it: two for PostgreSQL, as in two processes, one for memory."""

    def __init__(self, settings: Settings, clock: FixedClock) -> None:
        """Build all containers with `clock`."""
        self.clock = clock
        self.settings = settings
        self.in_memory = settings.storage.storage is Storage.MEMORY
        self.containers = [Container(settings=settings) for _ in range(1 if self.in_memory else 2)]
        for container in self.containers:
            container.clock.override(clock)

    def ledger(self, number: int = 0) -> CreditLedger:
        """Return the ledger of a process."""
        ledger: CreditLedger = self.containers[number % len(self.containers)].credit_ledger()
        return ledger

    async def read_credits(self, user_id: str) -> StoredCredits:
        """Return the stored rows of a user, oldest first."""
        async with self.containers[0].unit_of_work()() as work:
            account = await work.credits.get_user_credits(user_id)
            rows = await work.credits.get_user_transactions(user_id, limit=100_000)
        holds = await self.holds(user_id)
        return StoredCredits(account, rows[::-1], len(holds), sum(hold.amount for hold in holds))

    async def holds(self, user_id: str) -> list[CreditHold]:
        """Return a user's open holds."""
        if self.in_memory:
            return list(self.containers[0].memory_store().user_rows(CreditHold, user_id).values())
        async with self.containers[0].database_manager().session_factory() as session:
            return list(await session.scalars(select(CreditHold).where(col(CreditHold.user_id) == user_id)))

    async def close(self) -> None:
        """Close every connection."""
        for container in self.containers:
            await container.shutdown()


@pytest.fixture
async def world(settings: Settings, clock: FixedClock) -> AsyncIterator[World]:
    """Provide a world in either storage."""
    world = World(relax_time_limits(settings), clock)
    yield world
    await world.close()
