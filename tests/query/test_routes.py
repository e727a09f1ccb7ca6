"""`POST /api/query`: cache first, one credit for an answer, nothing for anything else."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from containers import Container
from shopassist.query.models import Answer, QueryRequest
from tests.support.helpers import FixedClock
from tests.support.http_fixtures import TestAssistant

GUEST = {"X-Session-ID": "g2wsht"}
QUESTION = {"query": "best 5G phone under ₹12,000"}


async def ask(client: httpx.AsyncClient, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
    """Ask as a guest."""
    return await client.post("/api/query", json=body or QUESTION, headers=headers or GUEST)


async def test_an_answer_costs_one_credit(client: httpx.AsyncClient) -> None:
    """The body is the contract's, and says what was charged."""
    answer = await ask(client)
    assert answer.status_code == 200
    body = answer.json()
    assert body["query"] == QUESTION["query"]
    [product] = body["products"]
    assert product["price"] == 10999
    assert set(product) == {"title", "price", "currency", "rating", "features", "pros", "cons", "link"}
    assert body["recommendations_summary"] == "One phone fits."
    assert (body["cached"], body["error"]) == (False, None)
    metadata = {
        key: value for key, value in body["metadata"].items() if key not in {"near_misses", "criteria", "stale"}
    }
    assert metadata == {
        "cached": False,
        "cache_hit": False,
        "charged": 1,
        "user_id": "g2wsht",
        "available_credits": 9,
        "max_credits": 10,
        "is_guest": True,
        "can_reset": False,
        "next_reset_time": None,
    }


async def test_a_cached_answer_is_free_and_marked(client: httpx.AsyncClient, assistant: TestAssistant) -> None:
    """The same question, whatever its case and outer space, is served again to anybody."""
    first = (await ask(client)).json()
    second = (await ask(client, {"query": "  BEST 5G phone under ₹12,000 "}, {"X-Session-ID": "other"})).json()
    assert second["products"] == first["products"]
    assert (second["cached"], second["metadata"]["cache_hit"], second["metadata"]["charged"]) == (True, True, 0)
    assert second["metadata"]["available_credits"] == 10
    assert len(assistant.asked) == 1


async def test_an_expired_answer_is_worked_out_again(
    client: httpx.AsyncClient, assistant: TestAssistant, clock: FixedClock
) -> None:
    """After an hour the question costs a credit again."""
    await ask(client)
    clock.move(minutes=61)
    assert (await ask(client)).json()["metadata"]["available_credits"] == 8
    assert len(assistant.asked) == 2


@pytest.mark.parametrize(
    "outcome",
    [
        Answer(recommendations_summary="Nothing fits."),
        RuntimeError("secret reason"),
        TimeoutError(),
    ],
    ids=["empty", "failure", "time-out"],
)
async def test_what_is_no_answer_costs_nothing_and_is_not_stored(
    client: httpx.AsyncClient, assistant: TestAssistant, container: Container, outcome: Answer | Exception
) -> None:
    """The credit goes back, the next try is worked out afresh, and no reason of ours reaches the client."""
    assistant.outcome = outcome
    answers = [await ask(client), await ask(client)]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json()["products"] == []
        assert answer.json()["metadata"]["charged"] == 0
        assert answer.json()["metadata"]["available_credits"] == 10
        assert (answer.json()["error"] is not None) == isinstance(outcome, Exception)
        assert "secret" not in answer.text
    assert len(assistant.asked) == 2
    history = await container.credit_service().get_user_transactions("g2wsht")
    assert [row.transaction_type for row in history] == ["allocate"]


async def test_a_degraded_answer_is_free_and_not_stored(client: httpx.AsyncClient, assistant: TestAssistant) -> None:
    """Less than the whole assistant is not charged for."""
    assert isinstance(assistant.outcome, Answer)
    assistant.outcome = assistant.outcome.model_copy(update={"degraded": True})
    for _ in range(2):
        body = (await ask(client)).json()
        assert (len(body["products"]), body["metadata"]["charged"], body["cached"]) == (1, 0, False)


async def test_a_guest_without_credits_is_told_to_log_in(client: httpx.AsyncClient) -> None:
    """429 with the fields of the contract; a cached question is still answered."""
    for number in range(10):
        assert (await ask(client, {"query": f"phone {number}"})).status_code == 200
    refused = await ask(client)
    assert refused.status_code == 429
    body = refused.json()
    assert {key: body[key] for key in ("error_type", "available_credits", "max_credits", "is_guest")} == {
        "error_type": "credits_exhausted",
        "available_credits": 0,
        "max_credits": 10,
        "is_guest": True,
    }
    assert "log in" in body["error_description"].lower()
    assert "Retry-After" not in refused.headers  # a guest's credits do not come back
    assert isinstance(body["detail"], str)
    assert (await ask(client, {"query": "phone 3"})).status_code == 200


async def test_a_registered_user_without_credits_is_told_when(
    client: httpx.AsyncClient, container: Container, bearer: Callable[..., dict[str, str]], clock: FixedClock
) -> None:
    """And a day later the question is answered."""
    await container.credit_service().deduct_credit("auth0|123", amount=50)
    refused = await ask(client, headers=bearer())
    assert refused.status_code == 429
    assert "2026-01-02 12:00" in refused.json()["error_description"]
    assert refused.headers["Retry-After"] == str(24 * 3600)
    clock.move(hours=23, minutes=59, seconds=58.5)
    assert (await ask(client, headers=bearer())).headers["Retry-After"] == "2"
    clock.move(seconds=1.5)
    assert (await ask(client, headers=bearer())).json()["metadata"]["available_credits"] == 49


async def test_many_at_once_spend_no_credit_twice(client: httpx.AsyncClient, container: Container) -> None:
    """30 different questions at once by a guest with 10 credits: 10 answers, 20 refusals, nothing held."""
    answers = await asyncio.gather(*[ask(client, {"query": f"phone {number}"}) for number in range(30)])
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 20
    assert await container.credit_service().check_credits("g2wsht", is_guest=True) == 0
    assert sum(row.amount for row in await container.credit_service().get_user_transactions("g2wsht")) == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": "  \n"},
        {"query": None},
        {"query": "x" * 2001},
        {"query": "a\x00b"},
        {"query": "q", "conversation_history": [{"text": "x", "sender": "robot", "timestamp": "now"}]},
        {"query": "q", "conversation_context": {"last_product_criteria": {"price_range": {"max": -1}}}},
    ],
    ids=str,
)
async def test_bad_requests_are_named_and_cost_nothing(
    client: httpx.AsyncClient, assistant: TestAssistant, body: Any
) -> None:
    """422 names the field, and the assistant is not called."""
    answer = await client.post("/api/query", json=body, headers=GUEST)
    assert answer.status_code == 422
    assert answer.json()["detail"] == "Validation error"
    [problem, *_] = answer.json()["errors"]
    assert set(problem) == {"loc", "msg", "type"}
    assert assistant.asked == []


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b'{"query": "\\ud800"}', 422), (b'{"query": 1e999}', 422), (b"{", 422), (b"[]", 422), (b"\xff", 422)],
)
async def test_bodies_that_are_no_question(client: httpx.AsyncClient, raw: bytes, status: int) -> None:
    """A lone surrogate, an infinite number, broken JSON, bytes that are no UTF-8: refused, never 500."""
    answer = await client.post("/api/query", content=raw, headers={**GUEST, "Content-Type": "application/json"})
    assert answer.status_code == status


async def test_unknown_fields_are_ignored(client: httpx.AsyncClient) -> None:
    """Clients may send what we do not know."""
    assert (await ask(client, {**QUESTION, "colour_scheme": "dark"})).status_code == 200


async def test_history_counts_by_what_was_said_alone(client: httpx.AsyncClient, assistant: TestAssistant) -> None:
    """The same conversation with other ids and times, or in the deployed client's shape, is the same question."""
    said = [{"text": "phones", "sender": "user"}, {"text": "Here are three.", "sender": "system"}]
    shapes: list[dict[str, Any]] = [
        {"conversation_history": [{**message, "timestamp": "2026-01-01T00:00:00Z"} for message in said]},
        {"conversation_history": [{**message, "timestamp": 1767225600000} for message in said]},
        {"conversation_context": {"messages": [{**message, "id": "m1", "timestamp": None} for message in said]}},
    ]
    answers = [(await ask(client, {**QUESTION, **shape})).json() for shape in shapes]
    assert [answer["cached"] for answer in answers] == [False, True, True]
    assert not (await ask(client)).json()["cached"]
    [(_, context), *_] = assistant.asked
    assert [message.text for message in context.messages] == ["phones", "Here are three."]


async def test_the_question_at_the_end_of_the_history_is_not_said_earlier(
    client: httpx.AsyncClient, assistant: TestAssistant
) -> None:
    """A client that adds the question to its history before sending asks a first question all the same."""
    history = [{"text": QUESTION["query"], "sender": "user", "timestamp": "now"}]
    await ask(client, {**QUESTION, "conversation_history": history})
    assert (await ask(client)).json()["cached"]


async def test_a_caller_who_leaves_gets_the_credit_back(container: Container, assistant: TestAssistant) -> None:
    """A question holds no credit after its work was cancelled."""
    started = asyncio.Event()

    class Slow(TestAssistant):
        async def answer(self, *_: Any) -> Answer:
            started.set()
            await asyncio.sleep(60)
            raise AssertionError

    container.assistant.override(Slow())
    asking = asyncio.create_task(
        container.query_service().answer("g2wsht", is_guest=True, request=QueryRequest(query="phone"))
    )
    await started.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        while await container.credit_service().check_credits("g2wsht", is_guest=True) < 10:
            await asyncio.sleep(0.01)
