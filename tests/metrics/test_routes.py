"""`/metrics`: access, values, and no personal data."""

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from containers import Container
from shopassist.app import create_app
from shopassist.consent.models import ConsentEvent
from shopassist.consent.ports import ConsentCounters
from shopassist.credits.ports import CreditRequest
from shopassist.errors import ShopAssistError
from shopassist.settings import Settings, TelemetrySettings
from tests.support.helpers import FixedClock
from tests.support.http_fixtures import TestAssistant

GUEST = {"X-Session-ID": "g2wsht"}
TOKEN = "a-token-of-prometheus"  # noqa: S105 - of these tests
Client = Callable[..., httpx.AsyncClient]


class TooOftenError(ShopAssistError):
    """A rate limit error."""

    code = "rate_limited"
    status = 429


async def figures(client: httpx.AsyncClient) -> dict[str, float]:
    """Return every sample by its name and labels."""
    text = (await client.get("/metrics")).text
    return {
        f"{sample.name}{dict(sorted(sample.labels.items())) or ''}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def ask(client: httpx.AsyncClient, query: str) -> httpx.Response:
    """Ask a question as a guest."""
    return await client.post("/api/query", json={"query": query}, headers=GUEST)


async def test_what_happened_is_shown(client: httpx.AsyncClient, assistant: TestAssistant) -> None:
    """Requests by route, holds by result, cache hits and misses, and errors by type are counted."""
    await ask(client, "a phone")
    await ask(client, "a phone")
    assistant.outcome = RuntimeError("nothing")
    await ask(client, "a laptop")
    await client.get("/api/user/credits")
    await client.post("/api/query", json={"query": " "}, headers=GUEST)
    await client.get("/unknown/path")
    shown = await figures(client)
    requests = "shopassist_http_request_duration_seconds_count"
    assert shown[f"{requests}{{'method': 'POST', 'route': '/api/query', 'status': '2xx'}}"] == 3
    assert shown[f"{requests}{{'method': 'POST', 'route': '/api/query', 'status': '4xx'}}"] == 1
    assert shown[f"{requests}{{'method': 'GET', 'route': '/api/user/credits', 'status': '4xx'}}"] == 1
    assert shown[f"{requests}{{'method': 'GET', 'route': 'other', 'status': '4xx'}}"] == 1
    assert shown["shopassist_http_requests_in_progress"] == 1
    holds = {event: shown[f"shopassist_credit_holds_total{{'event': '{event}'}}"] for event in ("held", "settled")}
    assert holds == {"held": 2, "settled": 1}
    assert shown["shopassist_credit_holds_total{'event': 'voided'}"] == 1
    assert shown["shopassist_query_cache_hits_total{'tier': 'database'}"] == 1
    assert shown["shopassist_query_cache_misses_total"] == 2
    errors = {"authentication_required": 1, "validation_error": 1, "not_found": 1}
    assert {name: shown[f"shopassist_errors_total{{'error_type': '{name}'}}"] for name in errors} == errors


async def test_counts_never_go_down(client: httpx.AsyncClient, container: Container) -> None:
    """Clearing the cache resets its statistics, but not the counters of Prometheus."""
    await ask(client, "a phone")
    await ask(client, "a phone")
    before = await figures(client)
    await container.query_cache_service().clear_cache()
    await ask(client, "a phone")
    after = await figures(client)
    hits, misses = "shopassist_query_cache_hits_total{'tier': 'database'}", "shopassist_query_cache_misses_total"
    assert (before[hits], before[misses]) == (1, 1)
    assert (after[hits], after[misses]) == (1, 2)


async def test_refusals_are_counted_by_type(client: httpx.AsyncClient, app: FastAPI) -> None:
    """Exhausted credits and rate limits are counted separately."""
    for number in range(11):
        await ask(client, f"question {number}")

    @app.get("/api/limited")
    async def limited() -> None:
        raise TooOftenError

    await client.get("/api/limited")
    shown = await figures(client)
    assert shown["shopassist_credit_refusals_total"] == 1
    assert shown["shopassist_errors_total{'error_type': 'credits_exhausted'}"] == 1
    assert shown["shopassist_errors_total{'error_type': 'rate_limited'}"] == 1


async def test_expired_holds_and_deductions_are_counted(
    container: Container, client: httpx.AsyncClient, clock: FixedClock
) -> None:
    """The job that voids expired holds and deductions without a hold are counted."""
    ledger = container.credit_ledger()
    await ledger.place_hold(CreditRequest(uuid4(), "g2wsht", True))
    clock.move(minutes=2)
    assert await ledger.void_expired() == 1
    await container.credit_service().deduct_credit("g2wsht", True)
    shown = await figures(client)
    assert shown["shopassist_credit_holds_total{'event': 'expired'}"] == 1
    assert shown["shopassist_credit_deductions_total"] == 1


async def test_consents_and_erasures_are_counted(
    client: httpx.AsyncClient, bearer: Callable[..., dict[str, str]]
) -> None:
    """Consents count by purpose and decision, erasures by origin; repetitions do not count."""
    user = bearer("auth0|decided")
    await client.post("/api/consent", json={"terms_accepted": True, "marketing_consent": True}, headers=user)
    for _ in range(2):
        await client.put("/api/consent/me", json={"marketing_consent": False}, headers=user)
        await client.request("DELETE", "/api/user", headers=GUEST)
    await ask(client, "a phone")
    for _ in range(2):
        await client.request("DELETE", "/api/user", headers=GUEST)
    shown = await figures(client)
    decisions = "shopassist_consent_decisions_total{{'decision': '{}', 'purpose': '{}'}}"
    assert shown[decisions.format("granted", "terms")] == 1
    assert shown[decisions.format("granted", "marketing")] == 1
    assert shown[decisions.format("withdrawn", "marketing")] == 1
    assert shown[decisions.format("withdrawn", "other")] == 0
    assert shown["shopassist_erasures_total{'asked_by': 'user'}"] == 1
    assert shown["shopassist_erasures_total{'asked_by': 'replay'}"] == 0


def test_purposes_of_an_operator_make_no_series() -> None:
    """Purposes of operators share one series."""
    counted = ConsentCounters()
    counted.count_decisions(
        ConsentEvent(user_id="a", is_guest=True, purpose=f"p{n}", granted=True, source="consents") for n in range(9)
    )
    assert counted.decisions["other", "granted"] == 9
    assert len(counted.decisions) == 6


async def test_nothing_about_a_person_is_shown(
    client: httpx.AsyncClient, bearer: Callable[..., dict[str, str]]
) -> None:
    """The text has no user ids, session ids, questions, or paths with them."""
    await ask(client, "something personal")
    await client.get("/api/user/me", headers=bearer("auth0|secret"))
    await client.post("/api/admin/credits/auth0%7Csecret/adjust", json={"amount": 1, "reason": "x"})
    text = (await client.get("/metrics")).text
    assert "/api/admin/credits/{user_id:path}/adjust" in text
    for word in ("g2wsht", "secret", "personal"):
        assert word not in text


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[Client]:
    """Return a function that creates a client of a new app, by token and client address."""
    containers = []

    def make(token: str | None = None, peer: str = "127.0.0.1") -> httpx.AsyncClient:
        telemetry = TelemetrySettings(metrics_token=SecretStr(token) if token else None)
        container = Container(settings=settings.model_copy(update={"telemetry": telemetry}))
        containers.append(container)
        transport = httpx.ASGITransport(create_app(container), client=(peer, 1234))
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    yield make
    for container in containers:
        await container.shutdown()


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("172.18.0.5", {}, 200),
        ("fd00::5", {}, 200),
        ("::ffff:10.1.2.3", {}, 200),
        ("203.0.113.7", {"X-Forwarded-For": "127.0.0.1"}, 403),
        ("8.8.8.8", {}, 403),
        ("::ffff:8.8.8.8", {}, 403),
        ("2a00:1450::1", {}, 403),
        ("testclient", {}, 403),
        ("127.0.0.1", {"X-Forwarded-For": "8.8.8.8"}, 403),
        ("172.18.0.5", {"Forwarded": "for=8.8.8.8"}, 403),
        ("10.0.0.1", {"Via": "1.1 proxy"}, 403),
        ("10.0.0.1", {"X-Real-IP": "8.8.8.8"}, 403),
    ],
)
async def test_without_a_token_only_private_networks_read(
    reader: Client, peer: str, headers: dict[str, str], status: int
) -> None:
    """Requests through a proxy are refused, because the proxy is on a private network."""
    answer = await reader(peer=peer).get("/metrics", headers=headers)
    assert answer.status_code == status
    assert ("shopassist_build_info" in answer.text) == (status == 200)


@pytest.mark.parametrize("peer", ["127.0.0.1", "8.8.8.8"])
async def test_with_a_token_everyone_must_show_it(reader: Client, peer: str) -> None:
    """With the token any client may read, also through a proxy; without it none may."""
    client = reader(TOKEN, peer)
    right = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "8.8.8.8"}
    assert (await client.get("/metrics", headers=right)).status_code == 200
    for headers in ({}, {"Authorization": "Bearer another"}, {"Authorization": f"Basic {TOKEN}"}):
        refused = await client.get("/metrics", headers=headers)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "shopassist_" not in refused.text
