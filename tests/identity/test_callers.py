"""Who is asking: tokens, sessions, and what is refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from containers import Container
from shopassist.app import create_app, lifespan
from shopassist.settings import IdentitySettings, Settings
from tests.support.hostile_text import MISSING_VALUES
from tests.support.http_fixtures import IdentityProvider

Bearer = Callable[..., dict[str, str]]
STATUS = "/api/user/credits"
PAST = datetime.now(UTC) - timedelta(hours=2)
FUTURE = datetime.now(UTC) + timedelta(hours=2)


async def test_a_verified_token_is_a_registered_user(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """Its subject is the user."""
    answer = await client.get(STATUS, headers=bearer("auth0|abc"))
    assert answer.status_code == 200
    assert answer.json()["user_id"] == "auth0|abc"
    assert answer.json()["is_guest"] is False


async def test_a_session_id_is_a_guest(client: httpx.AsyncClient) -> None:
    """Short fingerprints of a known client work."""
    answer = await client.get(STATUS, headers={"X-Session-ID": "g2wsht"})
    assert answer.status_code == 200
    assert (answer.json()["user_id"], answer.json()["is_guest"]) == ("g2wsht", True)


async def test_nobody_is_refused(client: httpx.AsyncClient) -> None:
    """Neither header is 401, with the challenge that the standard asks for."""
    answer = await client.get(STATUS)
    assert answer.status_code == 401
    assert answer.json() == {"detail": "Missing authentication token", "error_type": "authentication_required"}
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_without_any_key_nobody_is_called_a_forger(settings: Settings, provider: IdentityProvider) -> None:
    """An issuer that was never reached: 503, to be tried again, since nothing can be said of the token."""
    nowhere = settings.identity.model_copy(update={"oidc_issuer": "http://127.0.0.1:1/"})
    container = Container(settings=settings.model_copy(update={"identity": nowhere}))
    app = create_app(container)
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        token = provider.token(iss="http://127.0.0.1:1/")
        answer = await client.get(STATUS, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 503
    assert answer.json()["error_type"] == "issuer_unavailable"
    assert answer.headers["Retry-After"] == "30"  # when the issuer is asked again
    assert container.request_metrics().refused_tokens == {"keys_unavailable": 1}


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": "openid shopassist:admin"},
        {"scp": ["shopassist:admin"]},
        {"scp": "a shopassist:admin"},
        {"permissions": ["shopassist:admin"]},
    ],
)
async def test_administrators_are_known_by_any_usual_claim(
    client: httpx.AsyncClient, bearer: Bearer, claims: dict[str, Any]
) -> None:
    """`scope`, `scp` and `permissions`."""
    assert (await client.get("/api/consent/admin/all", headers=bearer(**claims))).status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"scope": ["x"]},
        {"scope": "shopassist:administrator"},
        {"permissions": "admin"},
        {"scp": {"shopassist:admin": 1}},
    ],
)
async def test_others_are_no_administrators(client: httpx.AsyncClient, bearer: Bearer, claims: dict[str, Any]) -> None:
    """The whole name counts."""
    assert (await client.get("/api/consent/admin/all", headers=bearer(**claims))).status_code == 403


def test_both_families_of_names_work_and_must_agree() -> None:
    """`OIDC_*`, or `AUTH0_*` as before; two different issuers are refused."""
    assert IdentitySettings(domain="x.example").issuer == "https://x.example/"
    assert IdentitySettings(oidc_issuer="https://y.example").issuer == "https://y.example/"
    assert IdentitySettings(oidc_issuer="https://x.example/", domain="x.example").issuer == "https://x.example/"
    with pytest.raises(ValueError, match="OIDC_ISSUER"):
        IdentitySettings(oidc_issuer="https://y.example", domain="x.example")


@pytest.mark.parametrize("session", ["auth0|123", "with space", "tab\there"])
async def test_session_ids_that_nobody_can_have(client: httpx.AsyncClient, session: str) -> None:
    """Not visible ASCII, or shaped like a registered user's id: 401."""
    answer = await client.get(STATUS, headers={"X-Session-ID": session})
    assert answer.status_code == 401
    assert answer.json()["error_type"] == "invalid_session"


@pytest.mark.parametrize(("length", "status"), [(255, 200), (256, 422), (10_000, 422)])
async def test_session_ids_have_a_longest(client: httpx.AsyncClient, length: int, status: int) -> None:
    """255 characters; what is longer is 422, as in any other field."""
    assert (await client.get(STATUS, headers={"X-Session-ID": "x" * length})).status_code == status


@pytest.mark.parametrize("session", MISSING_VALUES)
async def test_the_text_of_a_missing_value_is_no_session(
    client: httpx.AsyncClient, bearer: Bearer, session: str
) -> None:
    """422 that names the header: all clients with the same fault would share one account. A token counts alone."""
    headers = {"X-Session-ID": session}
    for method, path in (("GET", STATUS), ("POST", "/api/query"), ("GET", "/api/consents"), ("DELETE", "/api/user")):
        answer = await client.request(method, path, headers=headers, json={"query": "phone"})
        assert (answer.status_code, answer.json()["error_type"]) == (422, "invalid_input")
        assert "X-Session-ID" in answer.json()["detail"]
    merge = await client.post("/api/user/merge-guest", headers=bearer(), json={"session_id": session})
    assert merge.status_code == 422
    assert "session_id" in merge.text
    assert (await client.get(STATUS, headers={**headers, **bearer()})).status_code == 200
    assert (await client.get(STATUS, headers={**headers, "Authorization": "Bearer x.y.z"})).status_code == 401


@pytest.mark.parametrize("session", ["0", "-1", "nulls", "nan-7", "undefined1", "x.null", "trueblue", '{"id":1}'])
async def test_ids_that_resemble_a_missing_value(client: httpx.AsyncClient, session: str) -> None:
    """Everything else that a browser makes up is an id."""
    assert (await client.get(STATUS, headers={"X-Session-ID": session})).json()["user_id"] == session


async def test_a_session_cannot_name_a_registered_account(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """Neither to look at its credits nor to ask on them."""
    await client.get(STATUS, headers=bearer("numeric-subject"))
    guest = {"X-Session-ID": "numeric-subject"}
    assert (await client.get(STATUS, headers=guest)).status_code == 401
    assert (await client.post("/api/query", headers=guest, json={"query": "phone"})).status_code == 401
    status = await client.get(STATUS, headers=bearer("numeric-subject"))
    assert status.json()["available_credits"] == 50


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/user/me"), ("POST", "/api/consent"), ("GET", "/api/consent/me"), ("PUT", "/api/consent/me")],
)
async def test_guests_have_no_profile_and_no_consent_record(client: httpx.AsyncClient, method: str, path: str) -> None:
    """Routes of registered users ask a guest to log in."""
    answer = await client.request(method, path, headers={"X-Session-ID": "g2wsht"}, json={})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("claims", "status"),
    [({}, 403), ({"scope": "openid shopassist:admin"}, 200), ({"permissions": ["shopassist:admin"]}, 200)],
)
async def test_admin_routes_need_the_scope(
    client: httpx.AsyncClient, bearer: Bearer, claims: dict[str, Any], status: int
) -> None:
    """By scope or permission claim."""
    answer = await client.get("/api/consent/admin/all", headers=bearer(**claims))
    assert answer.status_code == status
