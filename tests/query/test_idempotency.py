"""One question, one piece of work, one charge: by key, by joining, over processes, and with clients that go away."""

import asyncio
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from containers import Container
from shopassist.app import create_app, lifespan
from shopassist.cache.memory import MemoryCachedAnswers
from shopassist.cache.models import CachedAnswer
from shopassist.cache.postgres import PostgresCachedAnswers
from shopassist.credits.ports import CreditRequest
from shopassist.errors import ClientGoneError, KeyInFlightError, StartupError
from shopassist.query.models import Answer, ConversationContext, QueryReply, QueryRequest
from shopassist.settings import AssistantSettings, Settings, Storage, read_settings
from tests.support.helpers import FixedClock, relax_time_limits
from tests.support.servers import ANSWER, TestServer, mark

GUEST = "g2wsht"
QUESTION = "best 5G phone under ₹12,000"
KEY = {"Idempotency_Key": "k-1"}
HOLD_ID = uuid4()


class GatedAssistant:
    """Answers once it is let; counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.outcome: Answer | Exception = ANSWER
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Answer."""
        self.asked += 1
        self.started.set()
        await self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Return settings of either storage with long time limits."""
    return relax_time_limits(settings)


@pytest.fixture
async def assistant(container: Container) -> GatedAssistant:
    """Return the assistant of `container`."""
    assistant = GatedAssistant()
    container.assistant.override(assistant)
    return assistant


@pytest.fixture
def app(container: Container, assistant: GatedAssistant) -> FastAPI:
    """Return the app over the container."""
    return create_app(container)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a guest's client of the running app."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"X-Session-ID": GUEST}
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://t", headers=headers) as client:
        yield client


async def ask(client: httpx.AsyncClient, query: str = QUESTION, **headers: str) -> httpx.Response:
    """Ask."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/api/query", json={"query": query}, headers=named)


def charged(*answers: httpx.Response) -> int:
    """Return the total charge of these responses."""
    return sum(answer.json()["metadata"]["charged"] for answer in answers)


async def spent(container: Container, guest: str = GUEST) -> int:
    """Return what a guest has paid, once nothing is held."""
    async with asyncio.timeout(10):
        while True:
            async with container.unit_of_work()() as work:
                account = await work.credits.get_user_credits(guest)
                rows = await work.credits.get_user_transactions(guest)
            if account is not None and account.held_credits == 0:
                break
            await asyncio.sleep(0.01)
    assert sum(row.amount for row in rows) == account.available_credits
    return sum(1 for row in rows if row.transaction_type == "deduct" and row.amount == -1)


# --- by key --------------------------------------------------------------------------------------------------------


async def test_the_same_key_and_body_are_answered_once(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant, clock: FixedClock
) -> None:
    """The stored answer comes again, marked and for nothing, even when the cache has forgotten it."""
    first = await ask(client, **KEY)
    clock.move(hours=23)
    second = await ask(client, **KEY)
    assert second.json() == first.json()
    assert ("idempotent-replayed" in first.headers, second.headers["idempotent-replayed"]) == (False, "true")
    assert (assistant.asked, await spent(container)) == (1, 1)


async def test_the_same_key_with_another_body_is_refused(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """422, whether the first was paid for or from the cache, and nothing is asked or charged."""
    await ask(client, **KEY)
    await ask(client, Idempotency_Key="k-2")
    for key in ("k-1", "k-2"):
        other = await ask(client, "another question", Idempotency_Key=key)
        assert (other.status_code, other.json()["error_type"]) == (422, "idempotency_key_reused")
    assert (assistant.asked, await spent(container)) == (1, 1)


async def test_a_key_in_flight_is_refused_and_then_replayed(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """409 with the same body and 422 with another, while the first is worked on; afterwards the stored answer."""
    assistant.gate.clear()
    first = asyncio.create_task(ask(client, **KEY))
    await assistant.started.wait()
    same, other = await ask(client, **KEY), await ask(client, "another question", **KEY)
    assert (same.status_code, same.json()["error_type"]) == (409, "idempotency_key_in_flight")
    assert same.headers["Retry-After"] == "1"
    assert (other.status_code, other.json()["error_type"]) == (422, "idempotency_key_reused")
    assistant.gate.set()
    assert charged(await first) == 1
    assert (await ask(client, **KEY)).json() == (await first).json()
    assert (assistant.asked, await spent(container)) == (1, 1)


async def test_equal_requests_with_one_key_at_once(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """Of 20 one is answered, the others are told that it is in flight or get its answer: one charge."""
    answers = await asyncio.gather(*[ask(client, **KEY) for _ in range(20)])
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert Counter(answer.status_code for answer in answers)[200] >= 1
    assert (assistant.asked, await spent(container)) == (1, 1)


async def test_a_key_belongs_to_its_caller(client: httpx.AsyncClient, assistant: GatedAssistant) -> None:
    """Another guest with the same key asks afresh, whatever the body."""
    await ask(client, **KEY)
    other = await ask(client, "another question", **KEY, X_Session_ID="other")
    assert (other.status_code, charged(other), "idempotent-replayed" in other.headers) == (200, 1, False)
    assert assistant.asked == 2


@pytest.mark.parametrize(
    "outcome",
    [Answer(recommendations_summary="Nothing."), ANSWER.model_copy(update={"degraded": True}), RuntimeError()],
    ids=["empty", "degraded", "failure"],
)
async def test_what_was_voided_is_not_kept(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant, outcome: Answer | Exception
) -> None:
    """The key dies with its hold: asked again, with this body or another, it is worked out and charged once."""
    assistant.outcome = outcome
    assert charged(await ask(client, **KEY)) == 0
    assistant.outcome = ANSWER
    again = await ask(client, "another question", **KEY)
    assert (charged(again), "idempotent-replayed" in again.headers) == (1, False)
    assert (assistant.asked, await spent(container)) == (2, 1)


async def test_an_answer_that_cannot_be_kept_gives_the_credit_back(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """An assistant that says what JSON cannot carry costs nothing, and nothing stays held."""
    [product] = ANSWER.products
    assistant.outcome = ANSWER.model_copy(update={"products": [product.model_copy(update={"price": float("nan")})]})
    assert (await ask(client, **KEY)).status_code >= 400
    assert await spent(container) == 0


async def test_after_a_day_a_key_is_new(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant, clock: FixedClock
) -> None:
    """It may come with another body, and costs again."""
    await ask(client, **KEY)
    clock.move(hours=24, seconds=1)
    again = await ask(client, "another question", **KEY)
    assert (charged(again), assistant.asked, await spent(container)) == (1, 2, 2)
    assert (await ask(client, "another question", **KEY)).headers["idempotent-replayed"] == "true"


async def test_a_cached_answer_is_kept_under_its_key(client: httpx.AsyncClient, container: Container) -> None:
    """It is free, and replayed from then on."""
    await ask(client)
    hit = await ask(client, **KEY)
    again = await ask(client, **KEY)
    assert (hit.json()["cached"], charged(hit), await spent(container)) == (True, 0, 1)
    assert (again.json(), again.headers["idempotent-replayed"]) == (hit.json(), "true")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "a\tb"])
async def test_keys_that_are_none(client: httpx.AsyncClient, assistant: GatedAssistant, key: str) -> None:
    """422 that names the header."""
    refused = await ask(client, Idempotency_Key=key)
    assert refused.status_code == 422
    assert "idempotency-key" in json.dumps(refused.json()["errors"]).lower()
    assert assistant.asked == 0


# --- by joining ----------------------------------------------------------------------------------------------------


async def test_equal_questions_at_once_are_one(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """20 at once by one caller: one piece of work, one charge, 20 answers; under their own keys, each is replayed."""
    assistant.gate.clear()
    asking = [asyncio.create_task(ask(client, Idempotency_Key=f"k-{number}")) for number in range(20)]
    await assistant.started.wait()
    await asyncio.sleep(0.05)
    assistant.gate.set()
    answers = await asyncio.gather(*asking)
    assert [answer.json()["products"][0]["title"] for answer in answers] == ["Phone"] * 20
    assert (charged(*answers), assistant.asked, await spent(container)) == (1, 1, 1)
    replayed = await asyncio.gather(*[ask(client, Idempotency_Key=f"k-{number}") for number in range(20)])
    assert [answer.headers.get("idempotent-replayed") for answer in replayed] == ["true"] * 20
    assert [answer.json() for answer in replayed] == [answer.json() for answer in answers]


async def test_equal_questions_of_two_callers_are_two(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """Work is not shared between callers: each pays for their own."""
    answers = await asyncio.gather(ask(client), ask(client, X_Session_ID="other"))
    assert (charged(*answers), assistant.asked) == (2, 2)
    assert (await spent(container), await spent(container, "other")) == (1, 1)


async def test_a_failure_is_shared_and_free(
    client: httpx.AsyncClient, container: Container, assistant: GatedAssistant
) -> None:
    """All callers of work that fails are told so and get their credits back; the next request starts new work."""
    assistant.outcome = RuntimeError()
    answers = await asyncio.gather(*[ask(client) for _ in range(5)])
    assert {(answer.status_code, answer.json()["error"] is None) for answer in answers} == {(200, False)}
    assert {answer.json()["metadata"]["available_credits"] for answer in answers} == {10}
    assert (charged(*answers), assistant.asked, await spent(container)) == (0, 1, 0)
    assistant.outcome = ANSWER
    assert charged(await ask(client)) == 1


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """Return settings with a short time-out."""
    return settings.model_copy(update={"assistant": AssistantSettings(timeout_seconds=0.1)})


async def test_a_time_out_gives_the_credit_back(impatient: Settings) -> None:
    """The caller hears so in time, and nothing is charged or held."""
    container = Container(settings=impatient)
    assistant = GatedAssistant()
    assistant.gate.clear()
    container.assistant.override(assistant)
    try:
        reply = await asked(container)
        assert (reply.response.error is None, reply.response.metadata.charged) == (False, 0)
        assert reply.response.metadata.available_credits == 10
        assert await spent(container) == 0
    finally:
        await container.shutdown()


async def asked(
    container: Container,
    key: str | None = None,
    gone: asyncio.Event | None = None,
    query: str = QUESTION,
    guest: str = GUEST,
) -> QueryReply:
    """Return the reply of a container's service to a guest, who disconnects when `gone` is set."""
    reply: QueryReply = await container.query_service().answer(
        guest, True, QueryRequest(query=query), key, gone.wait if gone else None
    )
    return reply


async def test_the_last_who_waits_ends_the_work(container: Container, assistant: GatedAssistant) -> None:
    """One of two who leaves changes nothing; once both have gone, the credit is back without an answer."""
    assistant.gate.clear()
    leaving = [asyncio.Event(), asyncio.Event()]
    asking = [asyncio.create_task(asked(container, gone=gone)) for gone in leaving]
    await assistant.started.wait()
    leaving[0].set()
    with pytest.raises(ClientGoneError):
        await asking[0]
    assert await container.credit_service().check_credits(GUEST, is_guest=True) == 9
    leaving[1].set()
    with pytest.raises(ClientGoneError):
        await asking[1]
    assert (await spent(container), assistant.asked) == (0, 1)


async def test_one_who_stays_is_answered(container: Container, assistant: GatedAssistant) -> None:
    """The caller that started the work disconnects; the one that joined it gets the answer for one credit."""
    assistant.gate.clear()
    gone = asyncio.Event()
    first = asyncio.create_task(asked(container, gone=gone))
    await assistant.started.wait()
    second = asyncio.create_task(asked(container))
    await asyncio.sleep(0.02)
    gone.set()
    with pytest.raises(ClientGoneError):
        await first
    assistant.gate.set()
    assert (await second).response.products
    assert (await spent(container), assistant.asked) == (1, 1)


async def test_whoever_comes_as_the_last_one_leaves_is_answered(
    container: Container, assistant: GatedAssistant
) -> None:
    """At any moment of the work's end, a new caller gets an answer rather than the end of others."""
    for number in range(20):
        query, gone = f"phone {number}", asyncio.Event()
        assistant.gate.clear()
        assistant.started.clear()
        first = asyncio.create_task(asked(container, gone=gone, query=query, guest=f"guest-{number}"))
        await assistant.started.wait()
        gone.set()
        for _ in range(number):
            await asyncio.sleep(0)
        assistant.gate.set()
        second = await asked(container, query=query, guest=f"guest-{number}")
        assert second.response.products
        assert (await asyncio.gather(first, return_exceptions=True))[0] is not None
        assert await spent(container, f"guest-{number}") == 1


async def test_leaving_at_any_moment_leaves_nothing_held(container: Container, assistant: GatedAssistant) -> None:
    """300 callers are cancelled or go after a random number of turns: nothing stays held, and sums are true."""
    chance = random.Random(7)  # noqa: S311 - to be repeated
    guests = [f"guest-{number}" for number in range(60)]

    async def come_and_go(number: int) -> None:
        gone = asyncio.Event()
        asking = asyncio.create_task(asked(container, gone=gone, query=f"phone {number}", guest=guests[number % 60]))
        await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003, 0.01]))
        for _ in range(chance.randint(0, 40)):
            await asyncio.sleep(0)
        if number % 2:
            asking.cancel()
        gone.set()
        await asyncio.gather(asking, return_exceptions=True)

    await asyncio.gather(*[come_and_go(number) for number in range(300)])
    await container.single_flight().close()
    for guest in guests:
        async with container.unit_of_work()() as work:
            account = await work.credits.get_user_credits(guest)
        if account:
            assert account.held_credits == 0
            assert 0 <= await spent(container, guest) <= 5


async def test_a_hold_that_ran_out_costs_nothing_and_is_not_kept(
    container: Container, assistant: GatedAssistant, clock: FixedClock
) -> None:
    """An answer that comes after the sweeper is given away, and the account is shown as it is."""
    assistant.gate.clear()
    asking = asyncio.create_task(asked(container, "k-1"))
    await assistant.started.wait()
    joined = asyncio.create_task(asked(container, "k-2"))
    await asyncio.sleep(0.02)
    clock.move(seconds=60)
    assert await container.credit_ledger().void_expired() == 1
    assistant.gate.set()
    for reply in (await asking, await joined):
        assert reply.response.products
        assert (reply.response.metadata.charged, reply.response.metadata.available_credits) == (0, 10)
    for key in ("k-1", "k-2"):
        assert await container.replays().get(GUEST, key) is None
    assert await spent(container) == 0


async def test_stopping_gives_back_what_is_held(container: Container, assistant: GatedAssistant) -> None:
    """When the app ends with questions in flight, their credits are back before its connections close."""
    assistant.gate.clear()
    app = create_app(container)
    async with lifespan(app):
        asking = [asyncio.create_task(asked(container, query=f"phone {number}")) for number in range(5)]
        async with asyncio.timeout(5):
            while assistant.asked < 5:
                await asyncio.sleep(0.01)
    assert [reply.response.metadata.charged for reply in await asyncio.gather(*asking)] == [0] * 5
    assert await spent(container) == 0


# --- in several processes ------------------------------------------------------------------------------------------


@pytest.fixture
async def two(container: Container, settings: Settings, clock: FixedClock) -> AsyncIterator[list[Container]]:
    """Yield the containers of two processes over one storage, each with its own single flight."""
    other = Container(settings=settings)
    other.clock.override(clock)
    if settings.storage.storage is Storage.MEMORY:
        other.memory().memory_store.override(container.memory_store())
    yield [container, other]
    await other.shutdown()


async def test_the_last_credit_is_joined_from_another_process(two: list[Container]) -> None:
    """A caller with no credit left but a hold for the question waits for its answer and is not refused."""
    assistant = GatedAssistant()
    for container in two:
        container.assistant.override(assistant)
    await two[0].credit_service().deduct_credit(GUEST, is_guest=True, amount=9)
    assistant.gate.clear()
    first = asyncio.create_task(asked(two[0]))
    await assistant.started.wait()
    second = asyncio.create_task(asked(two[1]))
    await asyncio.sleep(0.1)
    assistant.gate.set()
    replies = await asyncio.gather(first, second)
    assert [bool(reply.response.products) for reply in replies] == [True, True]
    assert sum(reply.response.metadata.charged for reply in replies) == assistant.asked == 1
    assert await spent(two[0]) == 1


@pytest.mark.parametrize("key", [None, "k-1"])
@pytest.mark.parametrize("looks_first", [True, False])
async def test_an_answer_that_comes_after_the_first_look_is_found(
    two: list[Container], key: str | None, looks_first: bool
) -> None:
    """Work that ends in another process just after, or just before, this one looks into the cache is not done again.

    Under a key the response is the stored one, although it was not there when this process looked for it.
    """
    assistant = GatedAssistant()
    looked, go_on = asyncio.Event(), asyncio.Event()
    kind = MemoryCachedAnswers if two[1].settings().storage.storage is Storage.MEMORY else PostgresCachedAnswers

    class Paused(kind):  # type: ignore[misc, valid-type]
        async def find(self, query_hash: str) -> CachedAnswer | None:
            found = await super().find(query_hash) if looks_first else None
            looked.set()
            await go_on.wait()
            return found if looks_first else await super().find(query_hash)

    for container in two:
        container.assistant.override(assistant)
    store = two[1].memory_store() if kind is MemoryCachedAnswers else two[1].database_manager()
    paused = Paused(store) if kind is MemoryCachedAnswers else Paused(store, two[1].clock())
    two[1].cached_answers.override(paused)
    second = asyncio.create_task(asked(two[1], key))
    await looked.wait()
    first = await asked(two[0], key)
    go_on.set()
    assert (await second).response.products == first.response.products
    assert (await second).replayed is (key is not None)
    assert (assistant.asked, await spent(two[0])) == (1, 1)


async def test_a_key_in_flight_elsewhere_is_no_matter_of_those_without_it(two: list[Container]) -> None:
    """The same key is refused in another process; the same question without it, at the same time, is answered."""
    assistant = GatedAssistant()
    for container in two:
        container.assistant.override(assistant)
    assistant.gate.clear()
    first = asyncio.create_task(asked(two[0], "k-1"))
    await assistant.started.wait()
    refused, joined = asyncio.create_task(asked(two[1], "k-1")), asyncio.create_task(asked(two[1]))
    with pytest.raises(KeyInFlightError):
        await refused
    assistant.gate.set()
    assert (await joined).response.products == (await first).response.products
    assert (assistant.asked, await spent(two[0])) == (1, 1)


async def test_a_hold_whose_process_died_is_waited_for_and_then_replaced(
    two: list[Container], clock: FixedClock
) -> None:
    """Without a key the question waits until the dead hold is swept, and is then worked out for one credit."""
    assistant = GatedAssistant()
    two[1].assistant.override(assistant)
    service = two[1].query_cache_service()
    dead = CreditRequest(HOLD_ID, GUEST, is_guest=True, question_hash=service.generate_query_hash(QUESTION))
    assert (await two[0].credit_ledger().place_hold(dead)).granted
    asking = asyncio.create_task(asked(two[1]))
    await asyncio.sleep(0.2)
    assert assistant.asked == 0
    clock.move(seconds=60)
    await two[0].credit_ledger().void_expired()
    assert (await asking).response.metadata.charged == 1
    assert (assistant.asked, await spent(two[1])) == (1, 1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where servers of a test leave their signs."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-once-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serve(folder: Path, database_url: str) -> Iterator[Callable[..., TestServer]]:
    """Yield a function that starts servers on one database."""
    servers: list[TestServer] = []

    def start(**environment: str) -> TestServer:
        servers.append(TestServer(folder, database_url, DB_HOT_TIMEOUT="30", **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


async def rows_of(url: str, statement: str) -> list[asyncpg.Record]:
    """Return the rows of a statement."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


UNTRUE = """
SELECT user_id FROM user_credits u
WHERE held_credits <> 0 OR available_credits < 0 OR EXISTS (SELECT FROM credit_holds)
   OR available_credits <> (SELECT sum(amount) FROM credit_transactions t WHERE t.user_id = u.user_id)
"""
CONNECTIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_a_hundred_equal_questions_over_four_processes_are_one(
    serve: Callable[..., TestServer], folder: Path, database_url: str
) -> None:
    """By one caller at once: one piece of work, one charge, 100 answers."""
    servers = [serve() for _ in range(4)]
    for server in servers:
        server.wait_until_ready()
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda number: servers[number % 4].ask("slow 2 phone", GUEST), range(100)))
    assert [(status, body["products"][0]["title"]) for status, body, _ in answers] == [(200, "Phone")] * 100
    assert sum(body["metadata"]["charged"] for _, body, _ in answers) == 1
    assert (folder / "asked").read_text() == "slow 2 phone\n"
    assert await rows_of(database_url, UNTRUE) == []
    [row] = await rows_of(database_url, "SELECT amount FROM credit_transactions WHERE transaction_type = 'deduct'")
    assert row["amount"] == -1


async def test_a_thousand_clients_that_go_away_leave_nothing(
    serve: Callable[..., TestServer], database_url: str
) -> None:
    """At rest no credit is held, no connection is out, sums are true, nothing was logged as an error."""
    server = serve(MAX_GUEST_CREDITS="5").wait_until_ready()
    chance = random.Random(11)  # noqa: S311 - to be repeated
    slots = asyncio.Semaphore(50)

    async def come_and_go(number: int) -> None:
        async with slots:
            body = json.dumps({"query": f"slow 0.0{chance.randint(1, 9)} phone {number}"}).encode()
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            head = f"POST /api/query HTTP/1.1\r\nHost: t\r\nX-Session-ID: guest-{number % 300}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            await asyncio.sleep(chance.uniform(0, 0.4))
            writer.transport.abort() if number % 2 else writer.close()

    await asyncio.gather(*[come_and_go(number) for number in range(1000)])
    async with asyncio.timeout(15):
        while await rows_of(database_url, UNTRUE):
            await asyncio.sleep(0.1)
    status, health, _ = await asyncio.to_thread(server.call, "GET", "/health/detailed")
    assert (status, find(health, "checked_out")) == (200, 0)
    assert len(await rows_of(database_url, CONNECTIONS)) <= 30
    worked = await rows_of(database_url, "SELECT id FROM credit_transactions WHERE transaction_type = 'deduct'")
    assert 0 < len(worked) < 1000
    log = server.log.read_text()
    assert [line for line in log.splitlines() if "Exception" in line or "never" in line or "Traceback" in line] == []


def find(value: Any, name: str) -> Any:
    """Return the first field of that name at any depth."""
    if isinstance(value, dict):
        return value.get(
            name, next((found for part in value.values() if (found := find(part, name)) is not None), None)
        )
    return None


async def test_a_server_that_is_stopped_finishes_or_gives_back(
    serve: Callable[..., TestServer], folder: Path, database_url: str
) -> None:
    """After SIGTERM a question that is nearly done is answered and paid for, one that hangs is not; exit code 0."""
    server = serve().wait_until_ready()
    with ThreadPoolExecutor(2) as threads:
        done = threads.submit(server.ask, "slow 1.5 phone", "g-done")
        hung = threads.submit(server.ask, "hang phone", "g-hung")
        async with asyncio.timeout(10):
            while not mark(folder, "hang phone").exists() or (folder / "asked").read_text().count("\n") < 2:
                await asyncio.sleep(0.02)
        assert await asyncio.to_thread(server.stop) == 0
        assert done.result()[1]["metadata"]["charged"] == 1
        assert hung.exception() is not None or hung.result()[1]["metadata"]["charged"] == 0
    assert await rows_of(database_url, UNTRUE) == []
    balances = await rows_of(database_url, "SELECT available_credits FROM user_credits ORDER BY user_id")
    assert [row["available_credits"] for row in balances] == [9, 10]


# --- the settings --------------------------------------------------------------------------------------------------


def test_a_hold_must_outlive_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lifetime at or below the time-out is refused in one sentence that names both."""
    monkeypatch.setenv("CREDIT_HOLD_TTL_SECONDS", "30")
    monkeypatch.setenv("QUERY_TIMEOUT_SECONDS", "30")
    with pytest.raises(StartupError) as refused:
        read_settings()
    assert str(refused.value) == (
        "CREDIT_HOLD_TTL_SECONDS (30) must be above QUERY_TIMEOUT_SECONDS (30), "
        "or a credit comes back before its answer."
    )
    monkeypatch.setenv("QUERY_TIMEOUT_SECONDS", "29.5")
    assert read_settings().assistant.timeout_seconds == 29.5
