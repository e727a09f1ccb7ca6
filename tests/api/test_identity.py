"""Who is asking: tokens, sessions, and what is refused."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.api.conftest import IdentityProvider

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


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example/"},
        {"aud": "somebody else"},
        {"aud": None},
        {"exp": PAST, "iat": PAST - timedelta(hours=1)},
        {"exp": None},
        {"exp": 1e30},
        {"exp": "soon"},
        {"iat": None},
        {"iat": FUTURE, "exp": FUTURE + timedelta(hours=1)},
        {"exp": datetime.now(UTC) + timedelta(days=400)},
        {"nbf": FUTURE},
        {"subject": ""},
        {"subject": "x" * 256},
        {"subject": "a\x00b"},
        {"headers": {"kid": "unknown"}},
        {"headers": {"kid": None}},
        {"headers": {"crit": ["exp"]}},
        {"key": rsa.generate_private_key(public_exponent=65537, key_size=2048)},
    ],
    ids=str,
)
async def test_bad_tokens_are_refused(client: httpx.AsyncClient, bearer: Bearer, claims: dict[str, Any]) -> None:
    """Whatever is wrong with it, also beside a session id: 401, and never silently a guest."""
    answer = await client.get(STATUS, headers={**bearer(**claims), "X-Session-ID": "g2wsht"})
    assert answer.status_code == 401, answer.text
    assert answer.json()["error_type"] == "invalid_token"


def signed_with_hmac(claims: dict[str, Any], secret: bytes) -> str:
    """What PyJWT refuses to make: HS256 with an asymmetric key as the secret."""
    header = {"alg": "HS256", "kid": "k1", "typ": "JWT"}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = base64.urlsafe_b64encode(hmac.digest(secret, b".".join(parts), "sha256")).rstrip(b"=")
    return b".".join([*parts, signature]).decode()


async def test_tokens_signed_by_other_means_are_refused(client: httpx.AsyncClient, provider: IdentityProvider) -> None:
    """No algorithm, and HMAC with the public key as its secret, are the classic forgeries."""
    claims = jwt.decode(provider.token(), options={"verify_signature": False})
    public = provider.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    forgeries = [
        jwt.encode(claims, "", algorithm="none", headers={"kid": "k1"}),
        signed_with_hmac(claims, public),
        "a.b.c",
        "x" * 100_000,
    ]
    for forgery in forgeries:
        answer = await client.get(STATUS, headers={"Authorization": f"Bearer {forgery}"})
        assert answer.status_code == 401


@pytest.mark.parametrize("header", ["Basic dTpw", "Bearer", "Bearer ", "token"])
async def test_other_schemes_are_refused(client: httpx.AsyncClient, header: str) -> None:
    """An Authorization header that holds no bearer token is a bad token."""
    answer = await client.get(STATUS, headers={"Authorization": header, "X-Session-ID": "g2wsht"})
    assert answer.status_code == 401


async def test_two_tokens_are_refused(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """Nobody can say which of two users is asking."""
    headers = [("Authorization", bearer("a")["Authorization"]), ("Authorization", bearer("b")["Authorization"])]
    assert (await client.get(STATUS, headers=headers)).status_code == 401


async def test_unknown_keys_do_not_make_us_ask_again_and_again(
    client: httpx.AsyncClient, provider: IdentityProvider, bearer: Bearer
) -> None:
    """However many tokens with unknown keys arrive, the issuer is asked once."""
    for number in range(20):
        answer = await client.get(STATUS, headers=bearer(headers={"kid": f"unknown {number}"}))
        assert answer.status_code == 401
    assert provider.requests == 1


@pytest.mark.parametrize("session", ["auth0|123", "with space", "x" * 256, "tab\there"])
async def test_session_ids_that_nobody_can_have(client: httpx.AsyncClient, session: str) -> None:
    """Too long, not visible ASCII, or shaped like a registered user's id: 401."""
    answer = await client.get(STATUS, headers={"X-Session-ID": session})
    assert answer.status_code == 401
    assert answer.json()["error_type"] == "invalid_session"


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
