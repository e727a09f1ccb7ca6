"""Compare the ledger with a model of it: random operations, one at a time and concurrent, on both storages."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shopassist.cache.models import StoredAnswer
from shopassist.credits.ports import Adjustment, CreditRequest, IdempotencyRecord, Settlement
from shopassist.settings import Settings
from tests.credits.conftest import StoredCredits, World
from tests.support.helpers import FixedClock, relax_time_limits

PERIOD = timedelta(hours=24)
LIFETIME = timedelta(seconds=60)
HOLDS_KEPT = 12

USERS = st.integers(0, 2)
AMOUNTS = st.sampled_from([1, 1, 2, 3, 7, 10, 49, 50, 51, 200])
QUESTIONS = st.sampled_from([None, None, "q1", "q2"])
KEYS = st.sampled_from([None, None, "k1", "k2"])
SPANS = st.sampled_from([1, 30, 59, 60, 61, 3600, 86_399, 86_400, 90_000])
ADJUSTMENTS = st.sampled_from([-60, -10, -1, 1, 5, 100, 2**31 - 1])


KINDS = [
    "look",
    "deduct",
    "hold",
    "hold",
    "settle",
    "settle",
    "void",
    "sweep",
    "reset",
    "reset due",
    "register",
    "adjust",
]


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation for a concurrent step, and the hold that it closes."""

    kind: str
    work: Callable[[], Coroutine[Any, Any, Any]]
    closes: UUID | None = None


@dataclass(slots=True)
class ModelHold:
    """The expected state of an open hold."""

    amount: int
    expires_at: datetime
    question: str | None
    key: str | None


@dataclass(slots=True)
class ModelAccount:
    """The expected state of an account."""

    is_guest: bool
    available: int
    last_reset: datetime
    rows: list[tuple[str, int]]
    holds: dict[UUID, ModelHold] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """Credits of a full account."""
        return 10 if self.is_guest else 50

    @property
    def held(self) -> int:
        """Sum of the open holds."""
        return sum(hold.amount for hold in self.holds.values())

    def fill(self, kind: str, now: datetime) -> None:
        """Refill the account; never lower its balance."""
        added = max(0, self.most - self.held - self.available)
        self.last_reset = now
        self.add(kind, added)

    def add(self, kind: str, amount: int) -> None:
        """Change the balance and record a transaction."""
        self.available += amount
        if amount:
            self.rows.append((kind, amount))

    def refuses(self, asked_as_guest: bool, amount: int) -> bool:
        """Return whether this caller may not take that amount."""
        return amount > self.available or (asked_as_guest and not self.is_guest)


class LedgerMachine(RuleBasedStateMachine):
    """One example: three users of its own, in a ledger that also has those of earlier examples."""

    def __init__(self, world: World, runner: asyncio.Runner) -> None:
        super().__init__()
        self.world = world
        self.runner = runner
        self.users: list[str] = []
        self.model: dict[str, ModelAccount] = {}
        self.known_holds: list[tuple[UUID, str]] = []
        self.stored: dict[str, dict[str, Any]] = {}

    # --- what a step does ------------------------------------------------------------------------------------------

    @initialize(held=st.lists(USERS, max_size=4))
    def begin(self, held: list[int]) -> None:
        """Place a hold for some users; the others have no account yet."""
        name = uuid4().hex
        self.users = [f"{name}|{number}" for number in range(3)]
        for user in held:
            self.hold(user, is_guest=False, amount=1, question=None, key=None)

    @rule(user=USERS, is_guest=st.booleans())
    def look(self, user: int, is_guest: bool) -> None:
        """Read an account: the first read creates it, a later one resets it if due."""
        user_id = self.users[user]
        account = self.run(self.world.ledger(user).get_or_create_account(user_id, is_guest))
        expected = self.expected_account(user_id, is_guest)
        assert (account.is_guest, account.available_credits) == (expected.is_guest, expected.available)

    @rule(user=USERS, is_guest=st.booleans(), amount=AMOUNTS)
    def deduct(self, user: int, is_guest: bool, amount: int) -> None:
        """Deduct all of an amount, or nothing."""
        user_id = self.users[user]
        grant = self.run(self.world.ledger().deduct(user_id, is_guest, amount, "spent"))
        account = self.expected_account(user_id, is_guest)
        assert grant.granted is not account.refuses(is_guest, amount)
        if grant.granted:
            account.add("deduct", -amount)
        assert grant.account.available_credits == account.available

    @rule(user=USERS, is_guest=st.booleans(), amount=AMOUNTS, question=QUESTIONS, key=KEYS)
    def hold(self, user: int, is_guest: bool, amount: int, question: str | None, key: str | None) -> None:
        """Place a hold, unless the question or the key is in progress."""
        user_id = self.users[user]
        request = CreditRequest(uuid4(), user_id, is_guest, amount, question, key)
        grant = self.run(self.world.ledger(user).place_hold(request))
        account = self.expected_account(user_id, is_guest)
        affordable = not account.refuses(is_guest, amount)
        in_flight = any(
            (question is not None and hold.question == question) or (key is not None and hold.key == key)
            for hold in account.holds.values()
        )
        assert (grant.granted, grant.is_in_progress) == (affordable and not in_flight, affordable and in_flight)
        if grant.granted:
            account.available -= amount
            account.holds[request.operation_id] = ModelHold(amount, self.world.clock.time + LIFETIME, question, key)
            self.known_holds = [*self.known_holds, (request.operation_id, user_id)][-HOLDS_KEPT:]
        assert (grant.account.available_credits, grant.account.held_credits) == (account.available, account.held)

    @rule(pick=st.integers(0, HOLDS_KEPT), with_answer=st.booleans(), with_key=st.booleans())
    def settle(self, pick: int, with_answer: bool, with_key: bool) -> None:
        """Settle a hold: it is deducted once, and its answer is stored if and only if it is settled."""
        hold_id, user_id = self.pick_hold(pick)
        settlement = self.settlement(hold_id, user_id, with_answer=with_answer, with_key=with_key)
        settled = self.run(self.world.ledger(pick).settle(settlement))
        account = self.model.get(user_id)
        hold = account.holds.pop(hold_id, None) if account else None
        assert settled is (hold is not None)
        if account and hold:
            account.rows.append(("deduct", -hold.amount))
        self.check_stored(settlement, settled)

    @rule(pick=st.integers(0, HOLDS_KEPT))
    def void(self, pick: int) -> None:
        """Void a hold: it is returned once."""
        hold_id, user_id = self.pick_hold(pick)
        voided = self.run(self.world.ledger(pick).void(hold_id, user_id))
        account = self.model.get(user_id)
        hold = account.holds.pop(hold_id, None) if account else None
        assert voided is (hold is not None)
        if account and hold:
            account.available += hold.amount

    @rule(pick=st.integers(0, 2), ways=st.lists(st.tuples(st.booleans(), st.integers(0, 1)), min_size=2, max_size=5))
    def close_at_once(self, pick: int, ways: list[tuple[bool, int]]) -> None:
        """Settle and void a hold several times concurrently, in both processes: one of them succeeds."""
        hold_id, user_id = self.pick_hold(pick)
        ended = self.run(all_of([self.close(hold_id, user_id, settle, process) for settle, process in ways]))
        account = self.model.get(user_id)
        hold = account.holds.pop(hold_id, None) if account else None
        assert ended.count(True) == (hold is not None)
        if account and hold and ways[ended.index(True)][0]:
            account.rows.append(("deduct", -hold.amount))
        elif account and hold:
            account.available += hold.amount

    def close(self, hold_id: UUID, user_id: str, settle: bool, process: int) -> Coroutine[Any, Any, bool]:
        """Settle or void a hold."""
        ledger = self.world.ledger(process)
        return ledger.settle(self.settlement(hold_id, user_id)) if settle else ledger.void(hold_id, user_id)

    @rule(pick=st.integers(0, HOLDS_KEPT))
    def close_for_another(self, pick: int) -> None:
        """Try to close a hold as another user: nothing changes."""
        hold_id, user_id = self.pick_hold(pick)
        stranger = next(other for other in self.users if other != user_id)
        assert not self.run(self.world.ledger().void(hold_id, stranger))
        assert not self.run(self.world.ledger().settle(Settlement(hold_id, stranger, "spent")))

    @rule(seconds=SPANS)
    def wait(self, seconds: int) -> None:
        """Advance the clock."""
        self.world.clock.move(seconds=seconds)

    @rule()
    def void_expired(self) -> None:
        """Void the holds past their lifetime, and no others."""
        voided = self.run(self.world.ledger().void_expired())
        due = 0
        for account in self.model.values():
            for hold_id, hold in list(account.holds.items()):
                if hold.expires_at <= self.world.clock.time:
                    del account.holds[hold_id]
                    account.available += hold.amount
                    due += 1
        assert voided == due

    @rule(user=USERS)
    def reset(self, user: int) -> None:
        """Reset a registered account; guests and unknown users stay unchanged."""
        self.run(self.world.ledger().reset(self.users[user]))
        account = self.model.get(self.users[user])
        if account and not account.is_guest:
            account.fill("reset", self.world.clock.time)

    @rule()
    def reset_due(self) -> None:
        """Reset each account that is due."""
        moved = self.run(self.world.ledger().reset_due_accounts(100_000))
        due = [account for account in self.model.values() if self.is_due(account)]
        for account in due:
            account.fill("reset", self.world.clock.time)
        assert moved >= len(due)

    @rule(user=USERS)
    def register(self, user: int) -> None:
        """Register a guest and fill the account up to a registered user's credits."""
        user_id = self.users[user]
        account = self.run(self.world.ledger().register_guest(user_id))
        expected = self.expected_account(user_id, is_guest=False)
        if expected.is_guest:
            expected.is_guest = False
            expected.fill("allocate", self.world.clock.time)
        assert (account.is_guest, account.available_credits) == (False, expected.available)

    @rule(user=USERS, amount=ADJUSTMENTS)
    def adjust(self, user: int, amount: int) -> None:
        """Adjust an account, unless that overdraws or overflows."""
        user_id = self.users[user]
        adjusted = self.run(self.world.ledger().adjust(Adjustment(uuid4(), user_id, amount, "why", "admin")))
        account = self.model.get(user_id)
        fits = account is not None and 0 <= account.available + amount <= 2**31 - 1 - account.held
        assert (adjusted is not None) is fits
        if account and fits:
            account.add("adjust", amount)

    @rule(data=st.data(), count=st.integers(2, 12))
    def at_once(self, data: st.DataObject, count: int) -> None:
        """Execute several operations concurrently in two processes: their results match the stored rows."""
        operations = [self.operation(data) for _ in range(count)]
        turns = [data.draw(st.integers(0, 3)) for _ in operations]
        holds_before = sum(len(account.holds) for account in self.model.values())
        rows_before = [row for account in self.model.values() for row in account.rows]
        outcomes = self.run(all_of([after(n, operation.work) for n, operation in zip(turns, operations, strict=True)]))
        done = list(zip(operations, outcomes, strict=True))
        closed = [operation.closes for operation, outcome in done if operation.closes and outcome]
        assert len(closed) == len(set(closed))
        swept = sum(outcome for operation, outcome in done if operation.kind == "sweep")
        held = sum(outcome.granted for operation, outcome in done if operation.kind == "hold")
        spent = sum(outcome.granted for operation, outcome in done if operation.kind == "deduct")
        spent += sum(outcome for operation, outcome in done if operation.kind == "settle")
        adjusted = sum(outcome is not None for operation, outcome in done if operation.kind == "adjust")
        self.adopt()
        new = [row for account in self.model.values() for row in account.rows]
        assert sum(len(account.holds) for account in self.model.values()) == holds_before + held - len(closed) - swept
        assert count_of("deduct", new) == count_of("deduct", rows_before) + spent
        assert count_of("adjust", new) == count_of("adjust", rows_before) + adjusted

    def operation(self, data: st.DataObject) -> Operation:
        """Draw an operation for a concurrent step."""
        ledger = self.world.ledger(data.draw(st.integers(0, 1)))
        kind = data.draw(st.sampled_from(KINDS))
        user_id, is_guest = self.users[data.draw(USERS)], data.draw(st.booleans())
        hold_id, owner = self.pick_hold(data.draw(st.integers(0, 2)))
        amount, change = data.draw(AMOUNTS), data.draw(ADJUSTMENTS)
        request = CreditRequest(uuid4(), user_id, is_guest, amount, data.draw(QUESTIONS), data.draw(KEYS))
        if kind == "hold":
            self.known_holds = [*self.known_holds, (request.operation_id, user_id)][-HOLDS_KEPT:]
        works: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "look": lambda: ledger.get_or_create_account(user_id, is_guest),
            "deduct": lambda: ledger.deduct(user_id, is_guest, amount, "spent"),
            "hold": lambda: ledger.place_hold(request),
            "settle": lambda: ledger.settle(self.settlement(hold_id, owner)),
            "void": lambda: ledger.void(hold_id, owner),
            "sweep": ledger.void_expired,
            "reset": lambda: ledger.reset(user_id),
            "reset due": lambda: ledger.reset_due_accounts(100_000),
            "register": lambda: ledger.register_guest(user_id),
            "adjust": lambda: ledger.adjust(Adjustment(uuid4(), user_id, change, "why", "admin")),
        }
        return Operation(kind, works[kind], hold_id if kind in {"settle", "void"} else None)

    # --- what holds after each step --------------------------------------------------------------------------------

    @invariant()
    def stored_state_matches_model(self) -> None:
        """Check that no balance is negative, sums and running balances match, and all rows match the model."""
        for user_id, stored in self.read_all().items():
            stored.check()
            expected = self.model.get(user_id)
            assert (stored.account is None) is (expected is None)
            if stored.account and expected:
                assert (stored.account.is_guest, stored.account.max_credits) == (expected.is_guest, expected.most)
                assert stored.account.available_credits == expected.available
                assert stored.account.last_reset_timestamp == expected.last_reset
                assert (stored.open_holds, stored.held) == (len(expected.holds), expected.held)
                assert [(row.transaction_type, row.amount) for row in stored.rows] == expected.rows

    def teardown(self) -> None:
        """Void the open holds, so that the next example has none."""
        for hold_id, user_id in [(h, u) for u, account in self.model.items() for h in account.holds]:
            self.run(self.world.ledger().void(hold_id, user_id))

    # --- helpers ---------------------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` and return its result."""
        return self.runner.run(work)

    def read_all(self) -> dict[str, StoredCredits]:
        """Return the stored rows of each user."""
        return dict(
            zip(self.users, self.run(all_of([self.world.read_credits(user) for user in self.users])), strict=True)
        )

    def expected_account(self, user_id: str, is_guest: bool) -> ModelAccount:
        """Return the expected account after a read."""
        now = self.world.clock.time
        account = self.model.get(user_id)
        if account is None:
            credits_ = 10 if is_guest else 50
            account = self.model[user_id] = ModelAccount(is_guest, credits_, now, [("allocate", credits_)])
        elif self.is_due(account):
            account.fill("reset", now)
        return account

    def is_due(self, account: ModelAccount) -> bool:
        """Return whether the period of an account is over."""
        return not account.is_guest and self.world.clock.time - account.last_reset >= PERIOD

    def pick_hold(self, pick: int) -> tuple[UUID, str]:
        """Return a hold (open, closed or refused) and its user; prefer recent ones."""
        return self.known_holds[-1 - pick % len(self.known_holds)] if self.known_holds else (uuid4(), self.users[0])

    def settlement(self, hold_id: UUID, user_id: str, *, with_answer: bool = True, with_key: bool = True) -> Settlement:
        """Build a settlement with an answer and a key of its own."""
        name = uuid4().hex
        answer = StoredAnswer(name, json.dumps({"answer": name}), timedelta(minutes=60)) if with_answer else None
        replay = IdempotencyRecord(user_id, name, name, {"answer": name}) if with_key else None
        return Settlement(hold_id, user_id, "spent", answer, replay)

    def check_stored(self, settlement: Settlement, settled: bool) -> None:
        """Check that the answer and the response are stored if and only if the hold was settled."""
        container = self.world.containers[-1]
        if settlement.answer:
            found = self.run(container.cached_answers().find(settlement.answer.query_hash))
            assert (found and found.result) == (json.loads(settlement.answer.result) if settled else None)
        if settlement.replay:
            kept = self.run(container.replays().get(settlement.user_id, settlement.replay.idempotency_key))
            assert kept == (settlement.replay if settled else None)

    def adopt(self) -> None:
        """Copy the stored state into the model after a concurrent step, once it is consistent."""
        for user_id, stored in self.read_all().items():
            stored.check()
            before = self.model.get(user_id)
            if stored.account is None:
                assert before is None
                continue
            rows = [(row.transaction_type, row.amount) for row in stored.rows]
            assert before is None or rows[: len(before.rows)] == before.rows
            assert [kind for kind, _ in rows].count("allocate") <= 2
            holds = self.run(self.open_holds(user_id))
            account = stored.account
            self.model[user_id] = ModelAccount(
                account.is_guest, account.available_credits, account.last_reset_timestamp, rows, holds
            )

    async def open_holds(self, user_id: str) -> dict[UUID, ModelHold]:
        """Return the user's open holds."""
        holds = await self.world.holds(user_id)
        return {h.hold_id: ModelHold(h.amount, h.expires_at, h.question_hash, h.idempotency_key) for h in holds}


def count_of(kind: str, rows: list[tuple[str, int]]) -> int:
    """Return the number of rows of that kind."""
    return [row_kind for row_kind, _ in rows].count(kind)


async def after(turns: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run `work` after some turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await work()


async def all_of(work: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run all of `work` concurrently and return the results."""
    return await asyncio.gather(*work)


BOUNDS = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_the_ledger_matches_the_model(settings: Settings, clock: FixedClock) -> None:
    """Nothing is overdrawn, sums match, and each hold ends once."""
    with asyncio.Runner() as runner:
        world = World(relax_time_limits(settings), clock)

        class Machine(LedgerMachine):
            def __init__(self) -> None:
                super().__init__(world, runner)

        try:
            run_state_machine_as_test(Machine, settings=BOUNDS)
        finally:
            runner.run(world.close())
