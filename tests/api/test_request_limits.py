"""Request limits: size, nesting, rate and host."""

import asyncio
import gzip
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from containers import Container
from shopassist.api.middleware import is_too_deep
from shopassist.app import create_app
from shopassist.credits.ports import CreditRequest
from shopassist.errors import RateLimitedError
from shopassist.identity.caller import Caller
from shopassist.identity.rate_limits import RateLimitKind, RateLimits, RequestQuota
from shopassist.query.models import QueryRequest
from shopassist.settings import ServerSettings
from tests.support.http_fixtures import TestAssistant

STATUS, QUERY = "/api/user/credits", "/api/query"
GUEST = {"X-Session-ID": "g2wsht"}
JSON = {**GUEST, "Content-Type": "application/json"}
Bearer = Callable[..., dict[str, str]]


def served_by(container: Container, **settings: Any) -> httpx.AsyncClient:
    """Return a client of an app with other server settings."""
    server = ServerSettings.model_validate(settings)
    app = create_app(Container(settings=container.settings().model_copy(update={"server": server})))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("10.0.0.1", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def chunks(size: int) -> AsyncIterator[bytes]:
    """Yield a body of unknown length."""
    for _ in range(0, size, 1024):
        yield b" " * 1024


def question(size: int) -> bytes:
    """Return a question of that many bytes, mostly padding."""
    start = b'{"query": "phone", "filling": "'
    return start + b"x" * (size - len(start) - 2) + b'"}'


async def test_a_body_has_64_kilobytes_at_the_most(client: httpx.AsyncClient, assistant: TestAssistant) -> None:
    """One more is 413, however it is sent, on every route, and nothing comes of it."""
    assert (await client.post(QUERY, headers=JSON, content=question(65536))).status_code == 200
    asked = len(assistant.asked)
    for answer in (
        await client.post(QUERY, headers=JSON, content=question(65537)),
        await client.post(QUERY, headers=JSON, content=chunks(66 * 1024)),
        await client.put("/api/consent/me", headers=JSON, content=question(70_000)),
        await client.post("/nowhere", content=question(70_000)),
        await client.request("GET", STATUS, headers=GUEST, content=question(70_000)),
    ):
        assert (answer.status_code, answer.json()["error_type"]) == (413, "body_too_large")
        assert answer.headers["Connection"] == "close"
    assert len(assistant.asked) == asked


@pytest.mark.parametrize("announced", ["10", "0", "99999999999999999999", "-1", "x"])
async def test_what_is_announced_is_not_believed(app: FastAPI, announced: str) -> None:
    """The bytes are counted, whatever Content-Length says, for servers that let it pass."""
    sent: list[Any] = []
    parts = [{"type": "http.request", "body": b" " * 40_000, "more_body": True}] * 3

    async def receive() -> Any:
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"test"), (b"content-length", announced.encode()), (b"x-session-id", b"g2wsht")]
    scope = {"type": "http", "method": "POST", "path": QUERY, "headers": headers, "query_string": b"", "scheme": "http"}
    await app({**scope, "http_version": "1.1", "raw_path": b"", "root_path": "", "client": None}, receive, send)
    assert sent[0]["status"] == 413


async def test_half_a_body_is_no_question(app: FastAPI, assistant: TestAssistant) -> None:
    """A client that goes away in the middle asked nothing, though what it sent looks whole."""
    parts = [{"type": "http.request", "body": b'{"query": "phone"}', "more_body": True}]

    async def receive() -> Any:
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError("no connection")

    headers = [(b"host", b"test"), (b"content-type", b"application/json"), (b"x-session-id", b"g2wsht")]
    scope = {"type": "http", "method": "POST", "path": QUERY, "headers": headers, "query_string": b"", "scheme": "http"}
    await app({**scope, "http_version": "1.1", "raw_path": b"", "root_path": "", "client": None}, receive, send)
    assert assistant.asked == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
async def test_compressed_bodies_are_refused(client: httpx.AsyncClient, encoding: str) -> None:
    """A few bytes can become gigabytes: 415 before anything is unpacked."""
    bomb = gzip.compress(b"\0" * 10_000_000)
    answer = await client.post(QUERY, headers={**JSON, "Content-Encoding": encoding}, content=bomb)
    assert (answer.status_code, answer.json()["error_type"]) == (415, "unsupported_encoding")
    plain = await client.post(QUERY, headers={**JSON, "Content-Encoding": "identity"}, content=question(100))
    assert plain.status_code == 200


@pytest.mark.parametrize(
    ("body", "deep"),
    [
        ("[" * 20 + "]" * 20, False),
        ("[" * 21 + "]" * 21, True),
        ('{"a":' * 20 + "1" + "}" * 20, False),
        ('{"a":' * 21 + "1" + "}" * 21, True),
        ('[{"a":' * 10 + "1" + "}]" * 10, False),
        ('[{"a":' * 11 + "1" + "}]" * 11, True),
        ("[" + ",".join(["[{}]"] * 1000) + "]", False),
        ('"' + "[" * 1000 + '"', False),
        ('{"a": "\\"' + "[{" * 1000 + '"}', False),
        ('{"a": "\\\\", "b": ' + "[" * 21 + "]" * 21 + "}", True),
        ("[" * 60_000, True),
        ("[]" * 30_000, False),
        ('"\\"' * 20_000 + "[" * 30, False),
    ],
)
def test_depth_is_measured_outside_strings(body: str, deep: bool) -> None:
    """Twenty levels are allowed, brackets in strings are none, and the worst bodies are seen through at once."""
    assert is_too_deep(body.encode()) is deep


async def test_deep_bodies_are_422(client: httpx.AsyncClient) -> None:
    """Also a field that is not read must not be nested too deeply."""
    body = '{"query": "phone", "x": ' + "[" * 5000 + "]" * 5000 + "}"
    answer = await client.post(QUERY, headers=JSON, content=body)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation_error")


LONG_TEXT = "x" * 10_000
MESSAGE = {"text": "a phone", "sender": "user"}


@pytest.mark.parametrize(
    "body",
    [
        {"query": "x" * 2001},
        {"query": "a\x00b"},
        {"query": "a\ud800b"},
        {"query": "phone", "conversation_context": {"messages": [MESSAGE] * 51}},
        {"query": "phone", "conversation_context": {"messages": [{**MESSAGE, "id": "x" * 256}]}},
        {"query": "phone", "conversation_context": {"messages": [{**MESSAGE, "id": LONG_TEXT}]}},
        {"query": "phone", "conversation_context": {"messages": [{**MESSAGE, "text": "\x00"}]}},
        {"query": "phone", "conversation_context": {"messages": [{**MESSAGE, "text": "\udfff"}]}},
        {"query": "phone", "conversation_context": {"messages": [{**MESSAGE, "timestamp": float("inf")}]}},
        {"query": "phone", "conversation_context": {"last_query": "x" * 2001}},
        {"query": "phone", "conversation_context": {"last_product_criteria": {"brand": "x" * 256}}},
        {"query": "phone", "conversation_context": {"last_product_criteria": {"brand": "\ud800"}}},
        {"query": "phone", "conversation_context": {"last_product_criteria": {"features": ["x"] * 51}}},
        {"query": "phone", "conversation_context": {"last_product_criteria": {"features": ["x" * 256]}}},
        {"query": "phone", "conversation_context": {"last_product_criteria": {"price_range": {"max": float("inf")}}}},
        {"query": "phone", "conversation_context": {"last_product_criteria": {"price_range": {"min": float("nan")}}}},
        {"query": "phone", "conversation_history": [{**MESSAGE, "text": "x" * 20_001}]},
        {"query": "phone", "conversation_history": {"text": "x"}},
    ],
)
async def test_what_no_field_can_hold_is_422(client: httpx.AsyncClient, body: Any) -> None:
    """And nothing that was sent is repeated, which for a lone surrogate could not even be sent."""
    content = json.dumps(body).replace("Infinity", "1e999").encode()
    answer = await client.post(QUERY, headers=JSON, content=content)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation_error")
    assert "xxx" not in answer.text


async def test_ids_of_ten_kilobytes_are_422(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """In a header, in a path and as a key."""
    adjustment = {"amount": 1, "reason": "because"}
    admin = bearer(scope="shopassist:admin")
    for answer in (
        await client.get(STATUS, headers={"X-Session-ID": LONG_TEXT}),
        await client.post(f"/api/admin/credits/{LONG_TEXT}/adjust", headers=admin, json=adjustment),
        await client.post("/api/admin/credits/%00/adjust", headers=admin, json=adjustment),
        await client.post(QUERY, headers={**JSON, "Idempotency-Key": LONG_TEXT}, json={"query": "phone"}),
    ):
        assert answer.status_code == 422


async def test_a_history_that_only_grows_is_read_from_its_end(
    client: httpx.AsyncClient, assistant: TestAssistant
) -> None:
    """The deployed client sends all of it: of 500 messages the last 50 count, and it is answered as ever."""
    history = [{"text": f"turn {number}", "sender": "user", "timestamp": "x"} for number in range(500)]
    body = {"query": "phone", "conversation_history": history}
    assert (await client.post(QUERY, headers=GUEST, json=body)).status_code == 200
    _, context = assistant.asked[-1]
    assert [message.text for message in context.messages] == [f"turn {number}" for number in range(450, 500)]


async def test_a_page_that_asks_twenty_times_never_meets_a_limit(client: httpx.AsyncClient) -> None:
    """14 page loads in a minute with 20 reads of the credits each; every response tells what is left."""
    for load in range(14):
        answers = await asyncio.gather(*(client.get(STATUS, headers=GUEST) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}, load
    assert answers[0].headers["RateLimit-Policy"] == '"reads";q=300;w=60'
    assert all(re.fullmatch(r'"reads";r=[0-9]+;t=[0-9]+', answer.headers["RateLimit"]) for answer in answers)


async def test_reads_past_the_limit_are_429(client: httpx.AsyncClient) -> None:
    """The 301st in a minute is told when to come again; others, and health, are not concerned."""
    for _ in range(300):
        assert (await client.get(STATUS, headers=GUEST)).status_code == 200
    refused = await client.get(STATUS, headers=GUEST)
    assert (refused.status_code, refused.json()["error_type"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit"].startswith('"reads";r=0;t=')
    assert (await client.get(STATUS, headers={"X-Session-ID": "other"})).status_code == 200
    assert (await client.post(QUERY, headers=GUEST, json={"query": "phone"})).status_code == 200
    for path in ("/health", "/health/ready", "/health/database", "/health/detailed", "/"):
        answer = await client.get(path, headers=GUEST)
        assert answer.status_code == 200
        assert "RateLimit" not in answer.headers


async def test_questions_past_the_limit_are_429_but_replays_and_joins(
    client: httpx.AsyncClient, assistant: TestAssistant
) -> None:
    """Thirty in a minute, from the cache or not; a replay is given again and a join waits with the others."""
    with_key = {**GUEST, "Idempotency-Key": "k"}
    first = await client.post(QUERY, headers=with_key, json={"query": "phone"})
    assert first.headers["RateLimit-Policy"] == '"questions";q=30;w=60'
    asked, answer_now = asyncio.Event(), asyncio.Event()
    answer = assistant.outcome

    async def slowly(query: str, _: Any) -> Any:
        if query == "slow":
            asked.set()
            await answer_now.wait()
        return answer

    assistant.answer = slowly  # type: ignore[method-assign,assignment]
    slow = asyncio.create_task(client.post(QUERY, headers=GUEST, json={"query": "slow"}))
    await asked.wait()
    for _ in range(28):
        assert (await client.post(QUERY, headers=GUEST, json={"query": "phone"})).status_code == 200
    refused = await client.post(QUERY, headers=GUEST, json={"query": "phone"})
    assert (refused.status_code, refused.json()["error_type"]) == (429, "rate_limited")
    assert int(refused.headers["Retry-After"]) > 0
    for _ in range(40):
        replayed = await client.post(QUERY, headers=with_key, json={"query": "phone"})
        assert (replayed.status_code, replayed.headers["Idempotent-Replayed"]) == (200, "true")
    joins = [asyncio.create_task(client.post(QUERY, headers=GUEST, json={"query": "slow"})) for _ in range(40)]
    await asyncio.sleep(0.1)
    answer_now.set()
    assert {joined.status_code for joined in await asyncio.gather(slow, *joins)} == {200}


async def test_a_join_in_another_process_is_not_refused(container: Container, assistant: TestAssistant) -> None:
    """A question that another process works on is not refused by the rate limit."""
    container.assistant.override(assistant)
    service = container.query_service()
    limits = RateLimits(questions=0, reads=0, network_factor=1)
    quotas = [RequestQuota(limits, RateLimitKind.QUESTIONS, Caller("g2wsht", is_guest=True)) for _ in range(2)]
    request = QueryRequest(query="elsewhere")
    with pytest.raises(RateLimitedError):
        await service.answer("g2wsht", True, request, quota=quotas[0])
    await container.credit_service().get_user_credits("g2wsht", is_guest=True)
    question_hash = container.query_cache_service().generate_query_hash("elsewhere")
    hold = CreditRequest(uuid4(), "g2wsht", True, question_hash=question_hash)
    assert (await container.credit_ledger().place_hold(hold)).granted
    waiting = asyncio.create_task(service.answer("g2wsht", True, request, quota=quotas[1]))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await container.credit_ledger().void(hold.operation_id, hold.user_id)
    assert (await waiting).response.products
    assert [quota.used is not None and quota.used.refused for quota in quotas] == [True, True]


@pytest.mark.parametrize("path", ["/", "/health", "/api/user/credits", "/nowhere", "/openapi.json", "/docs"])
async def test_every_answer_tells_browsers_to_be_careful(client: httpx.AsyncClient, path: str) -> None:
    """Whatever it is: not to be framed, sniffed or to leak where it was linked from; no HSTS without TLS."""
    answer = await client.get(path)
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "camera=()" in headers["Permissions-Policy"]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "Strict-Transport-Security" not in headers


async def test_the_page_needs_nothing_that_its_policy_forbids(client: httpx.AsyncClient) -> None:
    """No attribute that is script or style, no other address, and a policy of hashes alone."""
    answer = await client.get("/", headers={"Accept": "text/html"})
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Security-Policy"].count("'sha256-") == 2
    assert not re.search(r"<[^>]*\s(style|on\w+)=", answer.text.partition("<script>")[0])
    assert not re.search(r"""(src|href)=["'](https?:)?//""", answer.text)


async def test_the_description_comes_from_this_server_alone(client: httpx.AsyncClient) -> None:
    """`/docs` names no other server, and what it loads is there."""
    page = await client.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert len(loaded) >= 2
    for address in loaded:
        if not address.startswith("data:"):
            assert address.startswith("docs/files/")
            assert (await client.get(page.url.join(address))).status_code == 200


@pytest.mark.parametrize(
    ("scheme", "headers", "said"),
    [
        ("https", {}, True),
        ("http", {"X-Forwarded-Proto": "https"}, True),
        ("http", {"Forwarded": "for=203.0.113.7;proto=https"}, True),
        ("http", {"X-Forwarded-Proto": "http"}, False),
        ("http", {}, False),
    ],
)
async def test_hsts_is_said_over_tls_alone(
    container: Container, scheme: str, headers: dict[str, str], said: bool
) -> None:
    """Behind TLS of our own or of a proxy that is trusted."""
    async with served_by(container, TRUSTED_PROXIES="10.0.0.0/8") as client:
        answer = await client.get(f"{scheme}://test/health", headers=headers)
    assert ("Strict-Transport-Security" in answer.headers) is said


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("shop.example", 200),
        ("SHOP.example:8000", 200),
        ("a.b.example", 200),
        ("[::1]:8000", 200),
        ("evil.example", 400),
        ("b.example", 400),
        ("shop.example.evil.example", 400),
        ("", 400),
    ],
)
async def test_only_known_hosts_are_answered_to(container: Container, host: str, status: int) -> None:
    """By whole names, with or without a port; anything else is told so in JSON."""
    async with served_by(container, ALLOWED_HOSTS="shop.example, *.b.example, ::1") as client:
        answer = await client.get("/api/notices", headers={"Host": host, "Origin": "http://localhost:5173"})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
    if status == 400:
        assert answer.json()["error_type"] == "host_not_allowed"
        assert host not in answer.text or not host


async def test_pages_of_the_frontend_may_read_what_they_are_told(client: httpx.AsyncClient) -> None:
    """The headers about limits are shown to scripts of other origins, also with a refusal of the door."""
    origin = {"Origin": "http://localhost:5173"}
    answer = await client.get(STATUS, headers={**GUEST, **origin})
    exposed = answer.headers["Access-Control-Expose-Headers"]
    for name in ("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID", "Link", "Idempotent-Replayed"):
        assert name in exposed.split(", ")
    refused = await client.post(QUERY, headers={**JSON, **origin}, content=question(70_000))
    assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (413, origin["Origin"])
