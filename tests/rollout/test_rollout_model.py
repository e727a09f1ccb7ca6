"""A rollout with changing percentages gives the same results as a memory storage alone."""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from containers import Container
from shopassist.consent.models import (
    ConsentDecision,
    ConsentProvenance,
    ConsentSource,
    ConsentSubject,
    UserConsentCreate,
    UserConsentUpdate,
)
from shopassist.credits.models import CreditAdjustment
from shopassist.credits.ports import CreditRequest, IdempotencyRecord, Settlement
from shopassist.rollout import router
from shopassist.rollout.router import CallResult, is_equal, normalise_result, run_call
from shopassist.rollout.rows import MemoryUserRows, PostgresUserRows
from shopassist.settings import Settings, Storage, StorageSettings
from tests.support.helpers import FixedClock, postgres_settings, relax_time_limits

STEPS = 250
GUESTS = tuple(f"guest-{number}" for number in range(4))
USERS = tuple(f"auth0|{number}" for number in range(4))
ORIGIN = ConsentProvenance(ConsentSource.CONSENTS)
Step = Callable[[Container], Awaitable[Any]]


class Script:
    """Random calls from a seed, to be made on several containers."""

    def __init__(self, seed: int) -> None:
        """Start with no holds."""
        self.random = random.Random(seed)  # noqa: S311 - a script, no secret
        self.holds: list[tuple[UUID, str]] = []

    def draw(self) -> tuple[str, Step]:
        """Return the next call and its name."""
        user_id = self.random.choice(GUESTS + USERS)
        is_guest = user_id in GUESTS
        number = self.random.randrange(4)
        calls: dict[str, Step] = {
            "account": lambda world: world.credit_service().get_caller_account(user_id, is_guest),
            "status": lambda world: world.credit_service().get_credit_status(user_id, is_guest),
            "deduct": lambda world: world.credit_service().deduct_credit(user_id, is_guest, number),
            "history": lambda world: world.credit_service().get_user_transactions(user_id),
            "reset": lambda world: world.credit_service().reset_credits(user_id),
            "adjust": self._adjust(user_id, number),
            "hold": self._hold(user_id, is_guest, number),
            "settle": self._settle(),
            "void": self._void(),
            "replay": lambda world: world.replays().get(user_id, f"key-{number}"),
            "create consent": lambda world: world.consent_service().create_consent(user_id, UserConsentCreate()),
            "change consent": lambda world: world.consent_service().update_consent(
                user_id, UserConsentUpdate(marketing_consent=number % 2 == 0)
            ),
            "consent": lambda world: world.consent_service().get_consent(user_id),
            "all consents": lambda world: world.consent_service().list_consents(number + 1, USERS[0]),
            "decide": lambda world: world.consent_history_service().decide(
                ConsentSubject(user_id, is_guest), [ConsentDecision(purpose="marketing", granted=False)], ORIGIN
            ),
            "decisions": lambda world: world.consent_history_service().list_history(
                ConsentSubject(user_id, is_guest), 50
            ),
            "merge": lambda world: world.guest_merge_service().merge(GUESTS[number], USERS[number // 2]),
            "erase": lambda world: world.erasure_service().erase(user_id, is_guest, patience_seconds=60),
        }
        rare = {"merge": 0.2, "erase": 0.1}
        [name] = self.random.choices(list(calls), [rare.get(one, 1) for one in calls])
        return name, calls[name]

    def _adjust(self, user_id: str, number: int) -> Step:
        change, key = CreditAdjustment(amount=number - 4, reason="a correction"), f"a-{self.random.randrange(20)}"
        return lambda world: world.adjustment_service().adjust(user_id, change, USERS[0], key)

    def _hold(self, user_id: str, is_guest: bool, number: int) -> Step:
        hold_id = uuid4()
        self.holds.append((hold_id, user_id))
        request = CreditRequest(hold_id, user_id, is_guest, number + 1, f"{number}" * 64)
        return lambda world: world.credit_ledger().place_hold(request)

    def _any_hold(self) -> tuple[UUID, str]:
        return self.random.choice(self.holds) if self.holds else (uuid4(), USERS[0])

    def _settle(self) -> Step:
        hold_id, user_id = self._any_hold()
        replay = IdempotencyRecord(user_id, f"key-{self.random.randrange(4)}", "h" * 64, {"answer": "a phone"})
        return lambda world: world.credit_ledger().settle(Settlement(hold_id, user_id, "A question", None, replay))

    def _void(self) -> Step:
        hold_id, user_id = self._any_hold()
        return lambda world: world.credit_ledger().void(hold_id, user_id)


@pytest.fixture
async def worlds(
    database_url: str, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Container, Container]]:
    """Yield a rollout with long time limits, and memory alone."""
    monkeypatch.setattr(router, "SHADOW_SECONDS", 60.0)
    monkeypatch.setattr(router, "MIGRATION_SECONDS", 60.0)
    both = relax_time_limits(postgres_settings(database_url)).model_copy(
        update={"storage": StorageSettings(storage=Storage.ROLLOUT, rollout_shadow=True)}
    )
    rollout, alone = (
        Container(settings=settings) for settings in (both, Settings(storage=StorageSettings(storage=Storage.MEMORY)))
    )
    for container in (rollout, alone):
        container.clock.override(clock)
    await rollout.rollout().begin()
    yield rollout, alone
    await rollout.shutdown()


async def perform(step: Step, container: Container) -> CallResult:
    """Make a call and return its result."""
    return await run_call(step, container)


async def read_rows(state: MemoryUserRows | PostgresUserRows, user_id: str) -> dict[str, list[Any]]:
    """Return the comparable rows of a user by table."""
    rows = (await state.read([user_id])).get(user_id, {})
    return {
        table.__name__: sorted(json.dumps(one, sort_keys=True) for one in normalise_result(found))
        for table, found in rows.items()
    }


@pytest.mark.parametrize("seed", range(6))
async def test_percentages_change_no_result(worlds: tuple[Container, Container], clock: FixedClock, seed: int) -> None:
    """Each of 250 calls has the same result, no comparison differs, and in the end all rows are equal."""
    rollout, alone = worlds
    script = Script(seed)
    control = rollout.rollout()
    for step in range(STEPS):
        if script.random.random() < 0.15:
            control.set(script.random.choice([0, 10, 50, 90, 100]))
        if script.random.random() < 0.05:
            await control.back()
        if script.random.random() < 0.1:
            await control.router.close()  # follow-ups use the same instant
            clock.move(hours=script.random.choice([0.01, 5, 25]))
        name, call = script.draw()
        expected, found = await perform(call, alone), await perform(call, rollout)
        if name == "erase":  # a receipt also counts rows left in PostgreSQL
            expected, found = (None, expected[1]), (None, found[1])
        assert is_equal(expected, found), (step, name, expected, found)
        if name == "erase":
            await control.router.close()
            clock.move(seconds=1)  # a call at the very instant of an erasure may be refused or not
    await control.router.close()
    status = await control.get_status()
    assert (status.differences, status.unmirrored, status.shadow_failures) == ({}, [], 0)
    assert status.compared > 20
    for user_id in GUESTS + USERS:
        place = rollout.rollout_storage().placement()
        there = place.postgres_rows if user_id in place.in_postgres else place.memory_rows
        mine = await read_rows(there, user_id)
        same = await read_rows(MemoryUserRows(alone.memory_store()), user_id)
        for table in {*mine, *same}:
            assert mine.get(table) == same.get(table), (user_id, table)
    report = await rollout.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0
