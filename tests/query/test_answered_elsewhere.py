"""Work that ends between another process's look and its hold: found there, and not paid for again."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from containers import Container
from shopassist.credits.ports import CreditRequest, Grant
from shopassist.errors import KeyInFlightError
from shopassist.query.models import Answer, ConversationContext, QueryReply, QueryRequest
from shopassist.settings import Settings
from tests.support.helpers import postgres_settings, relax_time_limits
from tests.support.servers import ANSWER

GUEST = "g2wsht"
QUESTIONS = 60
STALL = """
CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    RETURN NULL;
END
$$;
CREATE TRIGGER stall AFTER INSERT ON query_cache FOR EACH STATEMENT EXECUTE FUNCTION stall()
"""
STALLED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event IN ('transactionid', 'tuple')
"""


class CountingAssistant:
    """Answers after a moment; counts how often it is asked each question."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.longest = 0.0

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Answer."""
        self.asked[query] += 1
        await asyncio.sleep(random.uniform(0, self.longest))  # noqa: S311 - any moment will do
        return ANSWER


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Return settings for PostgreSQL with long time-outs, since statements wait for each other."""
    settings = postgres_settings(database_url)
    rich = settings.credits.model_copy(update={"max_guest_credits": 100_000})
    return relax_time_limits(settings.model_copy(update={"credits": rich}))


@pytest.fixture
async def assistant() -> CountingAssistant:
    """Return the assistant of all processes."""
    return CountingAssistant()


@pytest.fixture
async def processes(settings: Settings, assistant: CountingAssistant) -> AsyncIterator[list[Container]]:
    """Yield the containers of three processes."""
    containers = [Container(settings=settings) for _ in range(3)]
    for container in containers:
        container.assistant.override(assistant)
    yield containers
    for container in containers:
        await container.single_flight().close()
        await container.shutdown()


async def asked(process: Container, query: str, key: str | None = None) -> QueryReply:
    """Return the reply to the guest."""
    reply: QueryReply = await process.query_service().answer(GUEST, True, QueryRequest(query=query), key)
    return reply


async def until(connection: asyncpg.Connection, statement: str, number: int = 1) -> None:
    """Wait until the statement counts so many."""
    async with asyncio.timeout(20):
        while await connection.fetchval(statement) < number:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("key", [None, "k-1"])
async def test_a_settlement_that_commits_while_a_hold_waits_is_seen(
    processes: list[Container], assistant: CountingAssistant, database_url: str, key: str | None
) -> None:
    """A hold that had looked before the settlement, and got the lock after it, finds the answer: one charge."""
    connection = await asyncpg.connect(database_url)
    try:
        await processes[0].credit_service().get_user_credits(GUEST, is_guest=True)
        await connection.execute(STALL)
        await connection.execute("SELECT pg_advisory_lock(4711)")
        first = asyncio.create_task(asked(processes[0], "phone", key))
        await until(connection, STALLED)
        second = asyncio.create_task(asked(processes[1], "phone", key))
        other = asyncio.create_task(asked(processes[2], "another phone"))
        await until(connection, WAITING)
        await connection.execute("SELECT pg_advisory_unlock(4711)")
        replies = await asyncio.gather(first, second, other)
    finally:
        await connection.close()
    assert [0 if reply.replayed else reply.response.metadata.charged for reply in replies] == [1, 0, 1]
    assert (replies[1].response.products, replies[1].replayed) == (replies[0].response.products, key is not None)
    assert assistant.asked == {"phone": 1, "another phone": 1}
    await check_account(database_url, spent=2)


async def test_a_hold_says_when_it_cannot_tell(processes: list[Container], database_url: str) -> None:
    """Granted behind a change of its account that it had not seen, it leaves open whether there is an answer."""
    await processes[0].credit_service().get_user_credits(GUEST, is_guest=True)
    grants: list[Grant] = []
    connection = await asyncpg.connect(database_url)
    watch = await asyncpg.connect(database_url)
    try:
        for change in ("UPDATE user_credits SET updated_at = updated_at", "SELECT FROM user_credits FOR UPDATE"):
            async with connection.transaction():
                await connection.execute(change)
                request = CreditRequest(uuid4(), GUEST, is_guest=True, question_hash=change[:9])
                holding = asyncio.create_task(processes[0].credit_ledger().place_hold(request))
                await until(watch, WAITING)
            grants.append(await holding)
    finally:
        await connection.close()
        await watch.close()
    assert [(grant.granted, grant.already_answered) for grant in grants] == [(True, None), (True, False)]


@pytest.mark.parametrize("keyed", [False, True])
async def test_at_any_moment_a_question_is_worked_out_and_paid_for_once(
    processes: list[Container], assistant: CountingAssistant, database_url: str, keyed: bool
) -> None:
    """Each of many questions is worked out once and paid for once, and everyone has its answer.

    Three processes ask it before, in and after the work of the others, while debits keep changing the account.
    """
    assistant.longest = 0.01
    done = asyncio.Event()

    async def ask_until_answered(process: Container, query: str) -> int:
        await asyncio.sleep(random.uniform(0, 0.03))  # noqa: S311 - any moment will do
        while True:
            try:
                reply = await asked(process, query, query if keyed else None)
            except KeyInFlightError:
                await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311
            else:
                assert reply.response.products
                return 0 if reply.replayed else reply.response.metadata.charged

    async def spend() -> int:
        debits = 0
        while not done.is_set():
            debits += await processes[debits % 3].credit_service().deduct_credit(GUEST, is_guest=True)
        return debits

    spending = asyncio.create_task(spend())
    queries = [f"phone-{number}" for number in range(QUESTIONS)]
    charges = [
        sum(await asyncio.gather(*[ask_until_answered(each, query) for each in processes * 2])) for query in queries
    ]
    done.set()
    assert assistant.asked == dict.fromkeys(queries, 1)
    assert charges == [1] * QUESTIONS
    await check_account(database_url, spent=QUESTIONS + await spending)


async def check_account(url: str, spent: int) -> None:
    """Check that the guest has paid so much, that nothing is held, and that the ledger adds up."""
    connection = await asyncpg.connect(url)
    try:
        account = await connection.fetchrow("SELECT available_credits, held_credits, max_credits FROM user_credits")
        total, debits = await connection.fetchrow(
            "SELECT sum(amount), count(*) FILTER (WHERE transaction_type = 'deduct') FROM credit_transactions"
        )
        assert await connection.fetchval("SELECT count(*) FROM credit_holds") == 0
    finally:
        await connection.close()
    assert (account["available_credits"], account["held_credits"], debits) == (account["max_credits"] - spent, 0, spent)
    assert total == account["available_credits"]
