"""What operators and callers are told of refused tokens, guests and questions by a real server."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from containers import Container
from shopassist.errors import TokenRefusal
from shopassist.logging import LogLimit
from shopassist.settings import IdentitySettings
from tests.identity.test_token_attacks import ATTACKS
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.servers import TestServer

STATUS = "/api/user/credits"
KINDS = {
    "expired": "expired",
    "not valid yet": "not_yet_valid",
    "issued in the future": "not_yet_valid",
    "lives longer than is believed": "lifetime_too_long",
    "another issuer": "wrong_issuer",
    "issuers in a list": "wrong_issuer",
    "another audience": "wrong_audience",
    "no audience in the list": "wrong_audience",
    "a stranger's key under a known name": "bad_signature",
    "another payload under the signature": "bad_signature",
    "an unknown key": "unknown_key",
    "no key named": "unknown_key",
    "HS256 with the public key, as PEM": "wrong_algorithm",
    "RS256 with the key of ES256": "wrong_algorithm",
    "another kind of token": "wrong_type",
    "never expires": "invalid_claim",
    "an empty subject": "invalid_claim",
    "not a token": "malformed",
    "five parts, as encrypted ones have": "malformed",
    "claims that are no JSON": "malformed",
    "100 kB": "malformed",
}


def read_events(server: TestServer, event: str) -> list[dict[str, Any]]:
    """Return the log lines of an event."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def read_refused_tokens(server: TestServer) -> dict[str, float]:
    """Return the number of refused tokens by kind, where there are any."""
    name = 'shopassist_tokens_refused_total{kind="'
    lines = [line for line in server.exchange("GET", "/metrics", None, {})[1].splitlines() if line.startswith(name)]
    counts = {line.removeprefix(name).partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}
    assert set(counts) == set(TokenRefusal)
    return {kind: count for kind, count in counts.items() if count}


def test_each_kind_of_refused_token_is_counted_and_logged_once(tmp_path: Path, provider: IdentityProvider) -> None:
    """Callers are told nothing more than before, and the log has no part of a token."""
    identity = {"OIDC_ISSUER": provider.issuer, "OIDC_AUDIENCE": AUDIENCE}
    server = TestServer(tmp_path, "", STORAGE="memory", **identity).wait_until_ready()
    try:
        tokens = {name: ATTACKS[name](provider) for name in KINDS}
        tokens["100 kB"] = tokens["100 kB"][:40_000]  # as much as the head of a request may have
        answers = {
            name: server.call("GET", STATUS, headers={"Authorization": f"Bearer {token}"})[:2]
            for name, token in list(tokens.items()) * 2
        }
        expected: dict[str, int] = {}
        for kind in KINDS.values():
            expected[kind] = expected.get(kind, 0) + 2
        assert read_refused_tokens(server) == expected
        body = {"detail": "Invalid authentication token", "error_type": "invalid_token"}
        # The issuer was asked a moment ago, and is not asked for another key.
        assert answers.pop("an unknown key")[0] == 503
        assert answers == dict.fromkeys(answers, (401, body))
        logged = read_events(server, "token_refused")
        assert sorted(line["reason"] for line in logged) == sorted(expected)
        assert {line["count"] for line in logged} == {1}
        assert not [name for name, token in tokens.items() if token in server.log.read_text()]
    finally:
        assert server.stop() == 0


@pytest.fixture
def limited_server(tmp_path: Path, database_url: str, provider: IdentityProvider) -> Iterator[TestServer]:
    """Run a server in production, with small limits and a clock that is wrong by five hours."""
    production = {"ENVIRONMENT": "production", "SECRET_KEY": "s" * 32, "DB_ALLOW_PRIVILEGED_ROLE": "true"}
    limits = {"GUEST_ACCOUNTS_PER_NETWORK_PER_DAY": "3", "MAX_REGISTERED_CREDITS": "1", "TEST_CLOCK_MINUTES": "300"}
    identity = {"OIDC_ISSUER": provider.issuer, "OIDC_AUDIENCE": AUDIENCE}
    server = TestServer(tmp_path, database_url, **production, **limits, **identity)
    yield server.wait_until_ready()
    assert server.stop() == 0


def test_refused_guests_are_logged_once_with_advice(limited_server: TestServer, provider: IdentityProvider) -> None:
    """Guests behind a proxy that TRUSTED_PROXIES does not name are one network, and read what there is.

    The database's clock says when there are credits again.
    """
    server, now = limited_server, datetime.now(UTC)
    until_midnight = (datetime.combine(now.date(), time.max, UTC) - now).total_seconds()

    def waits(headers: dict[str, str], seconds: float) -> bool:
        # Modulo a day, as the test may run at midnight.
        return (seconds - int(headers["retry-after"]) + 5) % 86400 < 120

    for number in range(10):
        headers = {"X-Session-ID": f"guest-{number}", "X-Forwarded-For": f"203.0.113.{number}"}
        for path in (STATUS, "/api/user/credits/transactions", "/api/consents", "/api/user/export"):
            assert server.call("GET", path, headers=headers)[0] == 200
        status, body, got = server.call("POST", "/api/query", {"query": "phone"}, headers)
        assert status == (200 if number < 3 else 429)
        assert number < 3 or (body["error_type"] == "guest_limit_reached" and waits(got, until_midnight))
    token = provider.token(exp=now + timedelta(hours=10), iat=now)
    for query in ("one", "another"):
        answered = server.call("POST", "/api/query", {"query": query}, {"Authorization": f"Bearer {token}"})
    assert (answered[0], answered[1]["error_type"]) == (429, "credits_exhausted")
    assert waits(answered[2], 24 * 3600)
    [line] = read_events(server, "guest_limit_reached")
    assert "TRUSTED_PROXIES" in line["reason"]
    assert "203.0.113" not in server.log.read_text()


async def test_without_an_issuer_that_is_the_kind(
    container: Container, client: httpx.AsyncClient, provider: IdentityProvider, bearer: Callable[..., dict[str, str]]
) -> None:
    """A server that lacks OIDC_ISSUER says so, whatever the token is."""
    without = container.settings().model_copy(update={"identity": IdentitySettings()})
    container.token_verifier.override(Container(settings=without).token_verifier())
    for headers in (bearer(), {"Authorization": "Bearer x"}):
        assert (await client.get(STATUS, headers=headers)).status_code == 401
    assert (await client.get(STATUS, headers={"Authorization": "Basic dTpw"})).status_code == 401
    assert container.request_metrics().refused_tokens == {"no_issuer_configured": 2, "malformed": 1}


def test_a_limited_log_counts_what_it_leaves_out() -> None:
    """The first event is logged, then one in an interval with the number of those since; each event for itself."""
    now = 0.0
    limit = LogLimit(lambda: now)
    assert [limit.count("a", 60) for _ in range(3)] == [1, 0, 0]
    assert limit.count("b", 60) == 1
    now = 59.9
    assert limit.count("a", 60) == 0
    now = 60
    assert [limit.count("a", 60) for _ in range(2)] == [4, 0]
