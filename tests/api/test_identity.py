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

from containers import Container
from shopassist.api.app import create_app, lifespan
from shopassist.settings import IdentitySettings, Settings
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
    ids="-".join,
)
async def test_bad_tokens_are_refused(client: httpx.AsyncClient, bearer: Bearer, claims: dict[str, Any]) -> None:
    """Whatever is wrong with it, also beside a session id: 401, and never silently a guest."""
    answer = await client.get(STATUS, headers={**bearer(**claims), "X-Session-ID": "g2wsht"})
    assert answer.status_code == 401, answer.text
    assert answer.json()["error_type"] == "invalid_token"


async def test_both_algorithms_are_believed_and_each_key_for_its_own(
    client: httpx.AsyncClient, provider: IdentityProvider, bearer: Bearer
) -> None:
    """RS256 and ES256; a key of one kind under the other's name proves nothing."""
    curve = {"key": provider.curve_key, "algorithm": "ES256"}
    assert (await client.get(STATUS, headers=bearer(headers={"kid": "k2"}, **curve))).status_code == 200
    assert (await client.get(STATUS, headers=bearer(headers={"kid": "k1"}, **curve))).status_code == 401
    assert (await client.get(STATUS, headers=bearer(headers={"kid": "k2"}))).status_code == 401
    for algorithm in ("RS384", "RS512", "PS256"):
        assert (await client.get(STATUS, headers=bearer(algorithm=algorithm))).status_code == 401


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
async def test_keys_that_prove_nothing_are_not_used(
    client: httpx.AsyncClient, provider: IdentityProvider, bearer: Bearer
) -> None:
    """Secrets, short keys, private keys and keys for encryption that an issuer publishes by mistake."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is what is tested
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def published(key: rsa.RSAPrivateKey, **fields: str) -> dict[str, Any]:
        return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "alg": "RS256", **fields}

    private = {**jwt.algorithms.RSAAlgorithm.to_jwk(other, as_dict=True), "alg": "RS256", "kid": "private"}
    provider.more_keys = [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I", "kid": "secret", "alg": "HS256"},
        published(short, kid="short"),
        published(other, kid="encryption", use="enc"),
        private,
    ]
    for kid, key in {"short": short, "encryption": other, "private": other}.items():
        assert (await client.get(STATUS, headers=bearer(key=key, headers={"kid": kid}))).status_code == 401
    token = jwt.encode({"sub": "x"}, b"secret-secret-secret-secret-secr", algorithm="HS256", headers={"kid": "secret"})
    assert (await client.get(STATUS, headers={"Authorization": f"Bearer {token}"})).status_code == 401
    assert provider.requests == 1


async def test_keys_named_by_a_token_are_never_fetched_or_used(
    client: httpx.AsyncClient, provider: IdentityProvider, bearer: Bearer
) -> None:
    """`jwk`, `jku` and `x5u` in a header are a stranger's word."""
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    for header in ({"jwk": jwk}, {"jku": f"{provider.issuer}evil"}, {"x5u": f"{provider.issuer}evil"}):
        answer = await client.get(STATUS, headers=bearer(key=stranger, headers=header))
        assert answer.status_code == 401
    assert provider.requests == 1


async def test_a_token_that_was_changed_is_refused(client: httpx.AsyncClient, provider: IdentityProvider) -> None:
    """Another payload under the same signature, and a signature cut short."""
    head, payload, signature = provider.token().split(".")
    _, other, _ = provider.token("auth0|victim").split(".")
    for token in (f"{head}.{other}.{signature}", f"{head}.{payload}.{signature[:-8]}", f"{head}.{payload}."):
        answer = await client.get(STATUS, headers={"Authorization": f"Bearer {token}", "X-Session-ID": "guest"})
        assert answer.status_code == 401


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
    assert answer.headers["Retry-After"]


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
    for number in range(1000):
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
