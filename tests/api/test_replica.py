"""Reads that may lag, over HTTP: which server they use, and their headers. Real standbys are in `tests/faults`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from containers import Container
from shopassist.consent.models import UserConsentCreate
from shopassist.settings import Settings
from tests.support.databases import PostgresServer
from tests.support.helpers import postgres_settings

Bearer = Callable[..., dict[str, str]]
HISTORY = "/api/user/credits/transactions"
CONSENTS = "/api/consent/admin/all"


@pytest.fixture
def replica_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """Return a readable server that follows no primary, like a promoted one; or what a test returns."""
    return getattr(request, "param", None) or database_url


@pytest.fixture(params=["postgres"])
def settings(request: pytest.FixtureRequest, database: PostgresServer, replica_url: str, provider: Any) -> Settings:
    """Return settings for both."""
    settings = postgres_settings(database.url)
    config = settings.database.model_copy(update={"replica_url": SecretStr(replica_url), "hot_timeout": 5})
    identity = settings.identity.model_copy(
        update={"oidc_issuer": provider.issuer, "oidc_audience": "https://api.shopassist.example"}
    )
    return settings.model_copy(update={"identity": identity, "database": config})


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def users_of(response: httpx.Response) -> list[str]:
    """Return the ids of the users in the list of consents."""
    assert response.status_code == 200, response.text
    return [record["user_id"] for record in response.json()]


@pytest.mark.parametrize("replica_url", ["postgresql://u:p@127.0.0.1:1/d", None], indirect=True)
async def test_a_replica_that_is_away_or_none_costs_nothing(
    client: httpx.AsyncClient, container: Container, bearer: Bearer
) -> None:
    """The primary answers, at once and unmarked, and the figures tell why."""
    user = f"auth0|{time.monotonic_ns()}"
    await container.consent_service().create_consent(user, UserConsentCreate())

    async def is_known() -> bool:
        found = (await client.get("/health/detailed")).json()["components"]["replica"]
        return found["status"] in {"away", "no_standby"} and found["lag_seconds"] is None

    await until(is_known)
    began = time.monotonic()
    consents = await client.get(CONSENTS, headers=bearer(scope="shopassist:admin"))
    history = await client.get(HISTORY, headers={"X-Session-ID": "a-guest"})
    assert time.monotonic() - began < 2
    assert user in users_of(consents)
    assert [row["transaction_type"] for row in history.json()] == ["allocate"]
    assert not {"x-data-stale", "x-data-as-of"} & {*consents.headers, *history.headers}
    figures = (await client.get("/health/detailed")).json()["components"]["replica"]
    assert (figures["reads"], figures["reads_by_primary"], figures["stale_reads"]) == (0, 2, 0)


async def test_why_a_replica_refuses_is_logged(database_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A parameter that it does not know would otherwise look like a server that is away."""
    settings = postgres_settings(database_url)
    replica_url = SecretStr(f"{database_url}?foo=hidden")
    config = settings.database.model_copy(update={"replica_url": replica_url})
    container = Container(settings=settings.model_copy(update={"database": config}))
    output = ""

    async def is_logged() -> bool:
        nonlocal output
        output += "".join(capfd.readouterr())
        return "foo" in output

    async with container.replica().running():
        await until(is_logged)
    await container.shutdown()
    assert "hidden" not in output


async def test_with_the_primary_gone_what_can_be_read_is_and_says_so(
    client: httpx.AsyncClient, database: PostgresServer, database_url: str, bearer: Bearer
) -> None:
    """History comes from the replica, marked; money and consent decisions do not; then all is as before.

    Neither does the list of consents: reading it is recorded first, which only the primary can do.
    """
    behind = Container(settings=postgres_settings(database_url))
    await behind.credit_service().get_user_credits("known-guest", is_guest=True)
    await behind.credit_service().get_user_credits("auth0|123")
    await behind.consent_service().create_consent("auth0|known-to-the-replica", UserConsentCreate())
    await behind.shutdown()
    admin = bearer(scope="shopassist:admin")
    guest = {"X-Session-ID": "known-guest"}
    assert "auth0|known-to-the-replica" not in users_of(await client.get(CONSENTS, headers=admin))
    database.stop()

    history = await client.get(HISTORY, headers=guest)
    assert history.headers["cache-control"] == "no-store"
    if "x-data-as-of" in history.headers:
        assert datetime.fromisoformat(history.headers["x-data-as-of"]) <= datetime.now(UTC)
    assert (history.status_code, len(history.json()), history.headers["x-data-stale"]) == (200, 1, "true")
    assert (await client.get(HISTORY, headers={"X-Session-ID": "never-seen"})).json() == []
    assert (await client.get(HISTORY, headers={"X-Session-ID": "auth0|123"})).status_code == 401
    refused = [
        await client.get(CONSENTS, headers=admin),
        await client.get("/api/consent/me", headers=admin),
        await client.post("/api/consent", json={}, headers=admin),
        await client.get("/api/user/credits", headers=guest),
        await client.post("/api/query", json={"query": f"a phone {time.monotonic_ns()}"}, headers=guest),
    ]
    assert [response.status_code for response in refused] == [503] * 5
    assert not [response for response in refused if "x-data-stale" in response.headers]
    figures = (await client.get("/health/detailed")).json()["components"]["replica"]
    assert figures["stale_reads"] >= 3

    database.start()

    async def is_whole() -> bool:
        return (
            await client.post("/api/consent", json={}, headers=bearer(f"auth0|{time.monotonic_ns()}"))
        ).status_code == 200

    await until(is_whole)
    consents = await client.get(CONSENTS, headers=admin)
    assert "auth0|known-to-the-replica" not in users_of(consents)
    assert "x-data-stale" not in consents.headers


async def test_statistics_may_lag_as_well(container: Container, database: PostgresServer) -> None:
    """Of the cache; so they are told while the primary is gone."""
    assert (await container.query_cache_service().get_cache_stats())["cache_size"] == 0
    database.stop()
    assert (await container.query_cache_service().get_cache_stats())["cache_size"] == 0
    assert container.replica().status()["stale_reads"] == 1
