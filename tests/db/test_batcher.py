"""Concurrent calls of a process in one statement: no call is lost, charged twice or left waiting."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from shopassist.cache.models import StoredAnswer
from shopassist.credits.models import CreditPolicy
from shopassist.credits.ports import Adjustment, CreditRequest, Grant, LedgerCounters, Settlement
from shopassist.credits.postgres.ledger import PostgresCreditLedger
from shopassist.db import batcher
from shopassist.db.batcher import Batcher
from shopassist.db.database import DatabaseManager
from shopassist.db.ports import SystemClock
from shopassist.errors import StorageUnavailableError
from shopassist.settings.database import DatabaseConfig
from tests.support.helpers import execute

PLAIN_DEBIT = """
WITH debit AS (
    UPDATE user_credits SET available_credits = available_credits - 1
    WHERE user_id = $1 AND available_credits >= 1 RETURNING user_id, available_credits
)
INSERT INTO credit_transactions (user_id, transaction_type, amount, description, balance_after)
SELECT user_id, 'deduct', -1, 'plain', available_credits FROM debit RETURNING user_id
"""
Ledgers = Callable[..., PostgresCreditLedger]


@pytest.fixture
async def ledgers(database_url: str) -> AsyncIterator[Ledgers]:
    """Return a function that creates ledgers, each with its own manager unless one is given."""
    managers: list[DatabaseManager] = []

    def ledger(url: str = database_url, manager: DatabaseManager | None = None) -> PostgresCreditLedger:
        if manager is None:
            manager = DatabaseManager(DatabaseConfig(database_url=SecretStr(url)))
            managers.append(manager)
        return PostgresCreditLedger(manager, CreditPolicy(), SystemClock(), lambda user_id: user_id, LedgerCounters())

    yield ledger
    for manager in managers:
        await manager.close()


async def balance(url: str, user_id: str) -> tuple[int, int, int, int]:
    """Return available and held credits of an account, the sum of its ledger, and its deductions."""
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT available_credits, held_credits, sum(amount), count(*) FILTER (WHERE transaction_type = 'deduct') "
            "FROM user_credits JOIN credit_transactions USING (user_id) WHERE user_id = $1 GROUP BY 1, 2",
            user_id,
        )
        return (row[0], row[1], row[2], row[3])
    finally:
        await connection.close()


@asynccontextmanager
async def locked(url: str, user_id: str) -> AsyncIterator[None]:
    """Lock the account's row in another transaction for the length of the block."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM user_credits WHERE user_id = $1 FOR UPDATE", user_id)
            yield
    finally:
        await connection.close()


def spend(ledger: PostgresCreditLedger, user_id: str, amount: int = 1) -> asyncio.Task[Grant]:
    """Debit once."""
    return asyncio.create_task(ledger.deduct(user_id, False, amount, "test"))


@dataclass
class Recorded:
    """A batch job that records its batches and waits for a signal before it answers."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[list[int]] = field(default_factory=list)

    async def run(self, requests: Sequence[int]) -> list[int]:
        """Answer each request with its double."""
        self.batches.append(list(requests))
        await self.go.wait()
        return [2 * request for request in requests]


async def test_a_lone_caller_goes_at_once_and_those_who_come_meanwhile_are_the_next_batch() -> None:
    """The first runs alone; later ones wait for it, in their order, and each gets its own answer."""
    job = Recorded()
    queue: Batcher[int, int] = Batcher(job.run)
    first = asyncio.create_task(queue.submit(0))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(queue.submit(n)) for n in range(1, 7)]
    await asyncio.sleep(0.01)
    assert job.batches == [[0]]
    job.go.set()
    assert [await first, *await asyncio.gather(*others)] == [2 * n for n in range(7)]
    assert job.batches == [[0], list(range(1, 7))]


async def test_many_who_come_meanwhile_go_beside_the_batch_under_way() -> None:
    """A second batch starts, but no third; it contains no group of the first, so that groups keep their order."""
    job = Recorded()
    queue: Batcher[int, int] = Batcher(job.run, group_of=lambda n: (n % 2, None))
    tasks = [asyncio.create_task(queue.submit(0))]
    await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(queue.submit(n)) for n in range(1, 21)]
    await asyncio.sleep(0.01)
    assert job.batches == [[0], list(range(1, 21, 2))]
    job.go.set()
    assert await asyncio.gather(*tasks) == [2 * n for n in range(21)]
    assert job.batches == [[0], list(range(1, 21, 2)), list(range(2, 21, 2))]


async def test_many_who_come_all_at_once_are_split() -> None:
    """Some are answered while others still run."""
    job = Recorded()
    job.go.set()
    queue: Batcher[int, int] = Batcher(job.run)
    assert await asyncio.gather(*(queue.submit(n) for n in range(64))) == [2 * n for n in range(64)]
    assert job.batches[0] == list(range(32))
    assert sorted(n for batch in job.batches for n in batch) == list(range(64))


async def test_callers_who_come_and_go_are_all_answered() -> None:
    """All callers are answered, in any grouping."""

    async def run(requests: Sequence[int]) -> list[int]:
        await asyncio.sleep(0)
        return list(requests)

    queue: Batcher[int, int] = Batcher(run, group_of=lambda n: (n % 5, n % 3))

    async def caller(turn: int) -> None:
        for n in range(50):
            for _ in range((turn * n) % 4):
                await asyncio.sleep(0)
            assert await queue.submit(turn * n) == turn * n

    async with asyncio.timeout(20):
        await asyncio.gather(*(caller(turn) for turn in range(60)))


async def test_a_full_queue_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound callers get `StorageUnavailableError` at once; those who wait are served."""
    monkeypatch.setattr(batcher, "MAX_QUEUED_REQUESTS", 3)
    job = Recorded()
    queue: Batcher[int, int] = Batcher(job.run)
    waiting = [asyncio.create_task(queue.submit(0))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.create_task(queue.submit(n)) for n in range(1, 4)]
    await asyncio.sleep(0.01)
    with pytest.raises(StorageUnavailableError):
        await queue.submit(4)
    job.go.set()
    assert await asyncio.gather(*waiting) == [0, 2, 4, 6]


async def test_one_bad_request_fails_alone(ledgers: Ledgers, database_url: str) -> None:
    """The batch falls back to singles: the neighbours of an id that PostgreSQL cannot take are served, each once."""
    ledger = ledgers()
    for user in ("a", "b"):
        await ledger.get_or_create_account(user, is_guest=False)
    async with locked(database_url, "a"):
        under_way = spend(ledger, "a")
        await asyncio.sleep(0.05)
        users = ["b", "bad\x00", "a", "b" * 300, "new"]
        tasks = [spend(ledger, user) for user in users]
        await asyncio.sleep(0.05)
    outcomes = await asyncio.gather(under_way, *tasks, return_exceptions=True)
    granted = [isinstance(outcome, Grant) and outcome.granted for outcome in outcomes]
    assert granted == [True, True, False, True, False, True]
    assert isinstance(outcomes[2], Exception)
    assert isinstance(outcomes[4], Exception)
    assert await balance(database_url, "a") == (48, 0, 48, 2)
    assert await balance(database_url, "b") == (49, 0, 49, 1)
    assert await balance(database_url, "new") == (49, 0, 49, 1)


async def test_a_cancelled_caller_neither_loses_nor_doubles(ledgers: Ledgers, database_url: str) -> None:
    """Callers who give up, running or waiting, are debited once; their neighbours get their answers."""
    ledger = ledgers()
    await ledger.get_or_create_account("a", is_guest=False)
    async with locked(database_url, "a"):
        tasks = [spend(ledger, "a")]
        await asyncio.sleep(0.05)
        tasks += [spend(ledger, "a") for _ in range(9)]
        await asyncio.sleep(0.05)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.sleep(0.05)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [n % 3 == 0 for n in range(10)]
    assert all(outcome.granted for outcome in outcomes if isinstance(outcome, Grant))
    await ledger.deduct("a", False, 1, "the queue goes on")
    assert await balance(database_url, "a") == (39, 0, 39, 11)


async def test_grants_are_handed_out_in_arrival_order(ledgers: Ledgers) -> None:
    """Of 90 callers of three users, who have 10 credits each, the first ten of each user are served."""
    ledger = ledgers()
    users = [f"guest{n % 3}" for n in range(90)]
    for user in set(users):
        await ledger.get_or_create_account(user, is_guest=True)
    grants = await asyncio.gather(*(ledger.deduct(user, True, 1, "test") for user in users))
    assert [grant.granted for grant in grants] == [True] * 30 + [False] * 60
    assert {grant.account.available_credits for grant in grants[-3:]} == {0}


async def test_different_amounts_of_one_user_never_share_a_batch(ledgers: Ledgers) -> None:
    """Each is decided with the balance that those before it left, as if they had come one after the other."""
    ledger = ledgers()
    await ledger.get_or_create_account("guest", is_guest=True)
    amounts = [4, 4, 3, 2, 1, 1, 1]
    grants = await asyncio.gather(*(ledger.deduct("guest", True, amount, "test") for amount in amounts))
    assert [grant.granted for grant in grants] == [True, True, False, True, False, False, False]


@dataclass
class Cutter:
    """A proxy to PostgreSQL that cuts the first connection on which it sees `marker`."""

    url: str
    marker: bytes
    delivers: bool
    cuts: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Return the connection string through it."""
        server = await asyncio.start_server(self._connected, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        head, _, tail = self.url.rpartition("@")
        async with server:
            yield f"{head}@127.0.0.1:{port}/{tail.rpartition('/')[2]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.url.rpartition("@")[2].rpartition("/")[0].rpartition(":")
        there, onward = await asyncio.open_connection(host, int(port))
        cut = asyncio.Event()

        async def answers() -> None:
            while (data := await there.read(65536)) and not cut.is_set():
                writer.write(data)
            writer.close()

        answering = asyncio.create_task(answers())
        while data := await reader.read(65536):
            if self.marker in data and not self.cuts:
                self.cuts += 1
                cut.set()
                if self.delivers:
                    onward.write(data)
                    await answering
                break
            onward.write(data)
        onward.close()
        writer.close()
        await answering


Work = Callable[[PostgresCreditLedger], Awaitable[object]]
Cut = Callable[[str, Work], Awaitable[None]]


@pytest.fixture(params=[True, False], ids=["it happened", "it did not"])
def cut(request: pytest.FixtureRequest, ledgers: Ledgers, database_url: str) -> Cut:
    """Return a function that loses its connection when the marker is sent: before or after the statement."""

    async def lose(marker: str, work: Work) -> None:
        cutter = Cutter(database_url, marker.encode(), delivers=request.param)
        async with cutter.running() as url:
            await work(ledgers(url))
        assert cutter.cuts == 1

    return lose


async def test_debits_whose_connection_is_lost_are_done_once(cut: Cut, ledgers: Ledgers, database_url: str) -> None:
    """By their operation ids it is known which happened; all are answered, and each is debited once."""
    for user in ("a", "b"):
        await ledgers().get_or_create_account(user, is_guest=False)

    async def work(ledger: PostgresCreditLedger) -> None:
        grants = await asyncio.gather(*(ledger.deduct(user, False, 1, "cut here") for user in "aabab"))
        assert all(grant.granted for grant in grants)

    await cut("cut here", work)
    assert await balance(database_url, "a") == (47, 0, 47, 3)
    assert await balance(database_url, "b") == (48, 0, 48, 2)


async def test_a_hold_and_its_settlement_whose_connections_are_lost_are_done_once(
    cut: Cut, ledgers: Ledgers, database_url: str
) -> None:
    """The hold is granted once, and the settlement deducts and stores once."""
    await ledgers().get_or_create_account("a", is_guest=False)
    hold = CreditRequest(uuid4(), "a", is_guest=False, question_hash="hold-cut")

    async def take(ledger: PostgresCreditLedger) -> None:
        assert (await ledger.place_hold(hold)).granted

    await cut("hold-cut", take)
    assert await balance(database_url, "a") == (49, 1, 50, 0)

    async def settle(ledger: PostgresCreditLedger) -> None:
        answer = StoredAnswer("c" * 64, '{"a": 1}', timedelta(minutes=1))
        assert await ledger.settle(Settlement(hold.operation_id, "a", "settle-cut", answer))

    await cut("settle-cut", settle)
    assert await balance(database_url, "a") == (49, 0, 49, 1)


@pytest.mark.parametrize("key", [None, "k-1"])
async def test_an_adjustment_whose_connection_is_lost_is_made_once(
    cut: Cut, ledgers: Ledgers, database_url: str, key: str | None
) -> None:
    """With or without a key, the administrator gets the account as it is then."""
    await ledgers().get_or_create_account("a", is_guest=False)
    adjustment = Adjustment(uuid4(), "a", -7, "adjust-cut", "admin", key, "h" * 64)

    async def adjust(ledger: PostgresCreditLedger) -> None:
        account = await ledger.adjust(adjustment)
        assert account is not None
        assert account.available_credits == 43

    await cut("adjust-cut", adjust)
    assert await balance(database_url, "a") == (43, 0, 43, 0)


async def test_terminated_backends_cost_nobody_anything(ledgers: Ledgers, database_url: str) -> None:
    """An administrator ends every backend while debits wait for a lock: each is done once all the same."""
    ledger = ledgers()
    await ledger.get_or_create_account("a", is_guest=False)
    async with locked(database_url, "a"):
        tasks = [spend(ledger, "a") for _ in range(5)]
        await asyncio.sleep(0.1)
        await execute(
            database_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'shopassist'",
        )
        await asyncio.sleep(0.1)
    assert all(grant.granted for grant in await asyncio.gather(*tasks))
    assert await balance(database_url, "a") == (45, 0, 45, 5)


async def test_connections_that_died_while_idle_are_passed_over(ledgers: Ledgers, database_url: str) -> None:
    """The first caller after the backends were ended is served, without an error."""
    ledger = ledgers()
    await asyncio.gather(*(ledger.get_or_create_account(f"user{n}", is_guest=False) for n in range(20)))
    await execute(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'shopassist'",
    )
    await asyncio.sleep(0.1)
    assert (await ledger.deduct("user1", False, 1, "test")).granted


async def test_hot_users_are_granted_exactly_what_they_have(ledgers: Ledgers, database_url: str) -> None:
    """6,000 debits over 20 users through four ledgers on two managers race plain ones: 50 grants each, no deadlock."""
    managers = [DatabaseManager(DatabaseConfig(database_url=SecretStr(database_url))) for _ in range(2)]
    four = [ledgers(manager=manager) for manager in managers for _ in range(2)]
    users = [f"user{n}" for n in range(20)]
    for user in users:
        await four[0].get_or_create_account(user, is_guest=False)
    granted: Counter[str] = Counter()

    async def through_ledger(turn: int) -> None:
        user = users[turn % 20]
        grant = await four[turn // 20 % 4].deduct(user, False, 1, "race")
        granted[user] += grant.granted

    async def plainly() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            for _ in range(5):
                for user in users:
                    rows = await connection.fetch(PLAIN_DEBIT, user)
                    granted[user] += len(rows)
        finally:
            await connection.close()

    try:
        await asyncio.gather(*(plainly() for _ in range(4)), *(through_ledger(turn) for turn in range(6000)))
    finally:
        for manager in managers:
            await manager.close()
    assert granted == dict.fromkeys(users, 50)
    for user in users:
        assert await balance(database_url, user) == (0, 0, 0, 50)


async def test_each_debit_leaves_one_row_in_arrival_order(ledgers: Ledgers, database_url: str) -> None:
    """With an operation id of its own and the balance after it, however the debits were batched."""
    ledger = ledgers()
    await ledger.get_or_create_account("a", is_guest=False)
    await asyncio.gather(*(ledger.deduct("a", False, 1, f"debit {n}") for n in range(40)))
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch(
        "SELECT operation_id, description, balance_after FROM credit_transactions "
        "WHERE transaction_type = 'deduct' ORDER BY id"
    )
    await connection.close()
    assert len({row["operation_id"] for row in rows}) == 40
    assert [(row["description"], row["balance_after"]) for row in rows] == [(f"debit {n}", 49 - n) for n in range(40)]
