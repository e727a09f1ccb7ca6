"""The app while its database is away: a real PostgreSQL of its own, which is stopped and started again."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from containers import Container
from shopassist.consent.models import NoticePublication
from shopassist.settings import ConsentSettings, Settings
from tests.support.databases import PostgresServer
from tests.support.helpers import postgres_settings

Bearer = Callable[..., dict[str, str]]
GUEST = {"X-Session-ID": "g2wsht"}
KNOWN = {"query": "a phone that was asked for"}
BODIES = {
    "/api/query": {"query": "a phone without a cached answer"},
    "/api/consent": {"terms_accepted": True},
    "/api/consent/": {"terms_accepted": True},
    "/api/consent/me": {"marketing_consent": True},
    "/api/admin/credits/{user_id:path}/adjust": {"amount": 1, "reason": "goodwill"},
    "/api/admin/notices": {"purpose": "terms", "locale": "en", "text": "Be good."},
    "/api/consents": {"consents": [{"purpose": "terms", "granted": False}]},
    "/api/user/merge-guest": {"session_id": "g2wsht"},
}
PARAMETERS = {"{user_id:path}": "auth0|1", "{purpose}": "terms", "{notice_id}": "1"}


@pytest.fixture(params=["postgres"])
def settings(request: pytest.FixtureRequest, database: PostgresServer, provider: Any) -> Settings:
    """Return settings for that server."""
    settings = postgres_settings(database.url)
    identity = settings.identity.model_copy(
        update={"oidc_issuer": provider.issuer, "oidc_audience": "https://api.shopassist.example"}
    )
    return settings.model_copy(update={"identity": identity})


async def until(holds: Callable[[], Any], seconds: float) -> float:
    """Wait until something holds; how long that took."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_what_is_in_memory_is_served_and_service_is_whole_again_by_itself(
    client: httpx.AsyncClient, database: PostgresServer, container: Container, capfd: pytest.CaptureFixture[str]
) -> None:
    """Free, marked and without credits; new questions are 503; five seconds after its return all is as before."""

    async def phase_is(phase: str) -> bool:
        return bool((await client.get("/health/ready")).json() == {"status": phase})

    guest = {"X-Session-ID": "has-nine-left"}
    asked = (await client.post("/api/query", json=KNOWN, headers=guest)).json()
    assert (asked["metadata"]["charged"], asked["metadata"]["stale"]) == (1, False)
    await asyncio.to_thread(database.stop)
    # A privacy signal that cannot be recorded now comes again with the next request.
    stale = await client.post("/api/query", json=KNOWN, headers={"X-Session-ID": "another", "Sec-GPC": "1"})
    assert stale.status_code == 200
    assert stale.json()["products"] == asked["products"]
    metadata = stale.json()["metadata"]
    assert (stale.json()["cached"], metadata["cached"], metadata["stale"], metadata["charged"]) == (True, True, True, 0)
    assert (metadata["user_id"], metadata["is_guest"]) == ("another", True)
    assert [metadata[name] for name in ("available_credits", "max_credits", "next_reset_time")] == [None] * 3
    new = await client.post("/api/query", json={"query": "something new"}, headers=guest)
    assert (new.status_code, new.json()["error_type"], new.headers["Retry-After"]) == (503, "storage_unavailable", "5")
    await until(lambda: phase_is("degraded"), 5)
    assert (await client.get("/health/ready")).status_code == 200
    assert (await client.get("/health")).status_code == 200
    details = (await client.get("/health/detailed")).json()["components"]
    assert (details["service"]["status"], details["stale_answers"]["served"]) == ("degraded", 1)
    await asyncio.to_thread(database.start)
    assert await until(lambda: phase_is("ready"), 5) < 5
    again = (await client.post("/api/query", json=KNOWN, headers=guest)).json()["metadata"]
    assert (again["stale"], again["cached"], again["available_credits"]) == (False, True, 9)
    log = capfd.readouterr()
    said = log.out + log.err
    assert (said.count("service_degraded"), said.count("service_whole")) == (1, 1)


async def test_every_route_answers_and_no_5xx_but_503(
    client: httpx.AsyncClient, app: FastAPI, database: PostgresServer, bearer: Bearer
) -> None:
    """Each route of the table, as guest and as administrator: alive, or a sentence with `Retry-After`."""
    admin = bearer("auth0|admin", scope="shopassist:admin")
    assert (await client.get("/api/user/me", headers=admin)).status_code == 200
    await asyncio.to_thread(database.stop)
    statuses: dict[tuple[str, str], int] = {}
    for route in iter_route_contexts(app.routes):
        path = str(route.path)
        for method in route.methods or ():
            for headers in (admin, GUEST):
                body = BODIES.get(path) if method in {"POST", "PUT"} else None
                answer = await client.request(method, filled(path), headers=headers, json=body)
                assert answer.status_code < 500 or answer.status_code == 503, (method, path)
                if answer.status_code == 503:
                    assert int(answer.headers["Retry-After"]) > 0
                    assert not {"Error", "postgres:", "127.0.0.1", "SELECT"} & set(answer.text.split()), answer.text
                if headers is admin:
                    statuses[method, path] = answer.status_code
    assert len(statuses) >= 15
    assert {path for (_, path), status in statuses.items() if status == 503} == {
        *(path for _, path in statuses if path.startswith("/api") and "rollout" not in path),
        "/health/database",
        "/health/detailed",
    }


def filled(path: str) -> str:
    """Return a path with values for its parameters."""
    for name, value in PARAMETERS.items():
        path = path.replace(name, value)
    return path


async def test_consent_is_refused_and_not_dropped(
    client: httpx.AsyncClient, database: PostgresServer, bearer: Bearer
) -> None:
    """503 for what was not recorded; afterwards there is no record, and it can be given."""
    user = bearer("auth0|consents")
    await client.get("/api/user/me", headers=user)
    await asyncio.to_thread(database.stop)
    assert (await client.post("/api/consent", headers=user, json={})).status_code == 503
    assert (await client.put("/api/consent/me", headers=user, json={"marketing_consent": True})).status_code == 503
    await asyncio.to_thread(database.start)

    async def there_is_none() -> bool:
        return (await client.get("/api/consent/me", headers=user)).status_code == 404

    await until(there_is_none, 5)
    assert (await client.post("/api/consent", headers=user, json={})).status_code == 200


async def test_a_cleared_answer_does_not_come_back(
    client: httpx.AsyncClient, container: Container, settings: Settings, database: PostgresServer
) -> None:
    """What one process clears, another forgets within a second, also for when the database is away."""
    other = Container(settings=settings)
    question = {"query": "a phone to be forgotten"}
    try:
        await client.post("/api/query", json=question, headers=GUEST)
        assert container.stale_answers().status()["answers"] == 1
        await other.query_cache_service().clear_cache()

        async def forgotten() -> bool:
            return container.stale_answers().status()["answers"] == 0

        assert await until(forgotten, 1) < 1
        await asyncio.to_thread(database.stop)
        assert (await client.post("/api/query", json=question, headers=GUEST)).status_code == 503
    finally:
        await other.shutdown()


class TestConsentRequired:
    """With `CONSENT_REQUIRED=true`."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """Return settings for that server."""
        return settings.model_copy(update={"consent": ConsentSettings(required=True)})

    async def test_who_may_not_have_agreed_is_not_served(
        self, client: httpx.AsyncClient, container: Container, database: PostgresServer
    ) -> None:
        """Not even from memory: 503 while agreements cannot be read, and as before when they can."""
        publication = NoticePublication(purpose="terms", locale="en", text="Be good.")
        notice = await container.notice_service().publish(publication, "operator")
        agreed = {"consents": [{"purpose": "terms", "granted": True, "notice_id": notice.id}]}
        assert (await client.post("/api/consents", headers=GUEST, json=agreed)).status_code == 200
        question = {"query": "a phone for those who agreed"}
        assert (await client.post("/api/query", headers=GUEST, json=question)).status_code == 200
        assert container.stale_answers().status()["answers"] == 1
        await asyncio.to_thread(database.stop)
        for who in (GUEST, {"X-Session-ID": "another"}):
            refused = await client.post("/api/query", headers=who, json=question)
            assert (refused.status_code, refused.json()["error_type"]) == (503, "storage_unavailable")
        assert (await client.delete("/api/consents/terms", headers=GUEST)).status_code == 503
        await asyncio.to_thread(database.start)

        async def served() -> bool:
            return (await client.post("/api/query", headers=GUEST, json=question)).status_code == 200

        await until(served, 10)
