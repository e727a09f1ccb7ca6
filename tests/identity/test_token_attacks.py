"""Tokens that must not be believed: what is tried against verifiers of JSON Web Tokens (RFC 8725), in one table."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from containers import Container
from shopassist.settings import Settings, Storage, StorageSettings
from tests.support.http_fixtures import AUDIENCE, IdentityProvider

Bearer = Callable[..., dict[str, str]]
Forgery = Callable[[IdentityProvider], str]
STATUS = "/api/user/credits"
NOW = datetime.now(UTC)
PAST, FUTURE = NOW - timedelta(hours=2), NOW + timedelta(hours=2)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGERS_CURVE = ec.generate_private_key(ec.SECP256R1())
STRANGERS_JWK = jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)


@pytest.fixture
def settings(provider: IdentityProvider) -> Settings:
    """Return settings that trust the provider; the storage does not matter here."""
    identity = Settings().identity.model_copy(update={"oidc_issuer": provider.issuer, "oidc_audience": AUDIENCE})
    return Settings(storage=StorageSettings(storage=Storage.MEMORY), identity=identity)


def claimed(**claims: Any) -> Forgery:
    """Return a token signed by the issuer with these claims (None: without)."""
    return lambda provider: provider.token(**claims)


def headed(**header: Any) -> Forgery:
    """Return a token signed by a stranger with this header."""
    return lambda provider: provider.token(key=STRANGER, headers=header)


def encoded(part: bytes | dict[str, Any]) -> bytes:
    """Return one encoded part of a token."""
    return base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")


def written(header: bytes | dict[str, Any], payload: bytes | dict[str, Any], provider: IdentityProvider) -> str:
    """Return a token of arbitrary parts, signed with the issuer's key, as no library would build it."""
    signed = b".".join([encoded(header), encoded(payload)])
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(signed, provider.key)
    return b".".join([signed, encoded(signature)]).decode()


def claims_of(provider: IdentityProvider) -> dict[str, Any]:
    """Return the claims of a valid token."""
    claims: dict[str, Any] = jwt.decode(provider.token(), options={"verify_signature": False})
    return claims


def with_header(header: dict[str, Any]) -> Forgery:
    """Claims and signature that hold, under another header."""
    return lambda provider: written({"kid": "k1", **header}, claims_of(provider), provider)


def with_payload(payload: bytes) -> Forgery:
    """Return a valid header and signature over another payload."""
    return lambda provider: written({"alg": "RS256", "kid": "k1"}, payload, provider)


def unsigned(algorithm: str) -> Forgery:
    """No signature at all, which an algorithm's name is to excuse."""
    return lambda provider: b".".join(
        [encoded({"alg": algorithm, "kid": "k1"}), encoded(claims_of(provider)), b""]
    ).decode()


def signed_with_the_public_key(form: str) -> Forgery:
    """HS256, with the issuer's public key as the secret."""

    def forgery(provider: IdentityProvider) -> str:
        public = provider.key.public_key()
        forms = {
            "der": lambda: public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "pem": lambda: public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "jwk": lambda: json.dumps(provider.jwks()["keys"][0]).encode(),
        }
        parts = [encoded({"alg": "HS256", "kid": "k1", "typ": "JWT"}), encoded(claims_of(provider))]
        return b".".join([*parts, encoded(hmac.digest(forms[form](), b".".join(parts), "sha256"))]).decode()

    return forgery


def changed(change: Callable[..., str]) -> Forgery:
    """Return the parts of a valid token combined with the payload of another one."""
    return lambda provider: change(*provider.token().split("."), provider.token("auth0|victim").split(".")[1])


ATTACKS: dict[str, Forgery] = {
    # Algorithms
    "no algorithm": unsigned("none"),
    "no algorithm, in capitals": unsigned("NONE"),
    "no algorithm, in mixed case": unsigned("nOnE"),
    "an empty algorithm": unsigned(""),
    "no signature under RS256": unsigned("RS256"),
    "HS256 with the public key, as PEM": signed_with_the_public_key("pem"),
    "HS256 with the public key, as DER": signed_with_the_public_key("der"),
    "HS256 with the public key, as JWK": signed_with_the_public_key("jwk"),
    "algorithm in lower case": with_header({"alg": "rs256"}),
    "algorithm with a blank": with_header({"alg": "RS256 "}),
    "algorithm in a list": with_header({"alg": ["RS256"]}),
    "without algorithm": with_header({}),
    "RS384": lambda provider: provider.token(algorithm="RS384"),
    "RS512": lambda provider: provider.token(algorithm="RS512"),
    "PS256": lambda provider: provider.token(algorithm="PS256"),
    "RS256 with the key of ES256": claimed(headers={"kid": "k2"}),
    "ES256 with the key of RS256": lambda provider: provider.token(key=provider.curve_key, algorithm="ES256"),
    "ES256 by a stranger": lambda provider: provider.token(
        key=STRANGERS_CURVE, algorithm="ES256", headers={"kid": "k2"}
    ),
    "ES256 with zero numbers (CVE-2022-21449)": lambda provider: b".".join(
        [encoded({"alg": "ES256", "kid": "k2"}), encoded(claims_of(provider)), encoded(bytes(64))]
    ).decode(),
    # Keys
    "a stranger's key under a known name": headed(),
    "a key in the token (jwk)": headed(jwk=STRANGERS_JWK),
    "a link to keys (jku)": headed(jku="https://evil.example/jwks.json"),
    "a link to a certificate (x5u)": headed(x5u="https://evil.example/x5u.pem"),
    "a certificate in the token (x5c)": headed(x5c=["MIIB"]),
    "an unknown key": claimed(headers={"kid": "unknown"}),
    "no key named": claimed(headers={"kid": None}),
    "an empty name of a key": claimed(headers={"kid": ""}),
    "a file as the key": headed(kid="../../../../dev/null"),
    "SQL as the key": headed(kid="' UNION SELECT 'k1' -- "),
    "a command as the key": headed(kid="k1; sleep 10 |"),
    "a link as the key": headed(kid="http://169.254.169.254/"),
    "NUL in the key's name": headed(kid="k1\x00"),
    "a number as the key": with_header({"alg": "RS256", "kid": 1}),
    "a list as the key": with_header({"alg": "RS256", "kid": ["k1"]}),
    # Headers
    "something critical": with_header({"alg": "RS256", "crit": ["exp"], "exp": 1}),
    "nothing critical": with_header({"alg": "RS256", "crit": []}),
    "a detached payload (b64)": with_header({"alg": "RS256", "b64": False}),
    "another kind of token": with_header({"alg": "RS256", "typ": "logout+jwt"}),
    "a kind that is no text": with_header({"alg": "RS256", "typ": 1}),
    "a header that is a list": lambda provider: written(b'["RS256"]', claims_of(provider), provider),
    "a header that is no JSON": lambda provider: written(b"RS256", claims_of(provider), provider),
    "a header nested deep": lambda provider: written(b'{"a":' + b"[" * 5000, b"{}", provider),
    # Issuer and audience
    "another issuer": claimed(iss="https://evil.example/"),
    "no issuer": claimed(iss=None),
    "an issuer that begins alike": lambda provider: provider.token(iss=f"{provider.issuer}evil"),
    "issuers in a list": lambda provider: written(
        {"alg": "RS256", "kid": "k1"}, {**claims_of(provider), "iss": [provider.issuer]}, provider
    ),
    "another audience": claimed(aud="another audience"),
    "an audience that begins alike": claimed(aud=f"{AUDIENCE}.evil"),
    "other audiences": claimed(aud=["another", "audience"]),
    "no audience in the list": claimed(aud=[]),
    "no audience": claimed(aud=None),
    "an audience as an object": with_payload(b'{"aud":{}}'),
    # Times
    "expired": claimed(exp=PAST, iat=PAST - timedelta(hours=1)),
    "expired a while beyond the leeway": claimed(exp=NOW - timedelta(seconds=60), iat=PAST),
    "never expires": claimed(exp=None),
    "expires at 1e30": claimed(exp=1e30),
    "expires at infinity": claimed(exp=float("inf")),
    "expires at no number": claimed(exp=float("nan")),
    "expires at a word": claimed(exp="soon"),
    "expires at a number in a text": claimed(exp="9999999999"),
    "expires at true": claimed(exp=True),
    "expires in a list": claimed(exp=[9999999999]),
    "lives longer than is believed": claimed(exp=NOW + timedelta(days=400)),
    "issued at no time": claimed(iat=None),
    "issued in the future": claimed(iat=FUTURE, exp=FUTURE + timedelta(hours=1)),
    "issued after it expired": claimed(iat=NOW + timedelta(seconds=5), exp=NOW - timedelta(seconds=5)),
    "issued at true": claimed(iat=True),
    "issued at minus 1e30": claimed(iat=-1e30),
    "not valid yet": claimed(nbf=FUTURE),
    "not valid before a number in a text": claimed(nbf="0"),
    "not valid before no number": claimed(nbf=float("nan")),
    "not valid before true": claimed(nbf=True),
    # Subjects and other claims
    "no subject": with_payload(b"{}"),
    "an empty subject": claimed(subject=""),
    "a subject that is too long": claimed(subject="x" * 256),
    "a subject with NUL": claimed(subject="a\x00b"),
    "a subject that is half a character": claimed(subject="\ud800"),
    "a number as the subject": lambda provider: written(
        {"alg": "RS256", "kid": "k1"}, {**claims_of(provider), "sub": 123}, provider
    ),
    "a list as the subject": lambda provider: written(
        {"alg": "RS256", "kid": "k1"}, {**claims_of(provider), "sub": ["auth0|123"]}, provider
    ),
    "null as the subject": lambda provider: written(
        {"alg": "RS256", "kid": "k1"}, {**claims_of(provider), "sub": None}, provider
    ),
    "claims that are a list": with_payload(b"[]"),
    "claims that are no JSON": with_payload(b"auth0|123"),
    "claims that are no text": with_payload(b"\xff\xfe"),
    "claims nested deep": with_payload(b'{"iss":' + b"[" * 5000),
    "a number of 5,000 digits": with_payload(b'{"exp":' + b"9" * 5000 + b"}"),
    "a token in a token": lambda provider: written(
        {"alg": "RS256", "kid": "k1", "cty": "JWT"}, provider.token().encode(), provider
    ),
    # Changed on the way
    "another payload under the signature": changed(lambda head, _, signature, other: f"{head}.{other}.{signature}"),
    "a signature cut short": changed(lambda head, payload, signature, _: f"{head}.{payload}.{signature[:-8]}"),
    "no signature": changed(lambda head, payload, *_: f"{head}.{payload}."),
    "two parts": changed(lambda head, payload, *_: f"{head}.{payload}"),
    "four parts": changed(lambda *parts: ".".join(parts)),
    "five parts, as encrypted ones have": changed(lambda *parts: ".".join([*parts, parts[0]])),
    "a blank within": changed(lambda head, payload, signature, _: f"{head}.{payload}. {signature}"),
    "padding": changed(lambda head, payload, signature, _: f"{head}.{payload}.{signature}=="),
    "letters that decoders skip": changed(lambda head, payload, signature, _: f"{head}.{payload}.{signature}!~"),
    "standard base64": lambda _: "+/+/.+/+/.+/+/",
    "not a token": lambda _: "a.b.c",
    "100 kB": lambda _: "x" * 100_000,
    "100 kB in three parts": claimed(padding="x" * 75_000),
}


@pytest.mark.parametrize("forgery", ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_is_refused(client: httpx.AsyncClient, provider: IdentityProvider, forgery: Forgery) -> None:
    """401, beside a session id that would be believed: never silently a guest; and the issuer is asked but once."""
    headers = {"Authorization": f"Bearer {forgery(provider)}", "X-Session-ID": "g2wsht"}
    answer = await client.get(STATUS, headers=headers)
    assert answer.status_code == 401, answer.text
    assert answer.json() == {"detail": "Invalid authentication token", "error_type": "invalid_token"}
    assert provider.requests <= 1


async def test_all_attacks_together_make_the_issuer_be_asked_once(
    client: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    """None of them is believed, and a token that holds still is, behind them."""
    for forgery in ATTACKS.values():
        answer = await client.get(STATUS, headers={"Authorization": f"Bearer {forgery(provider)}"})
        assert answer.status_code == 401 or answer.json()["error_type"] == "issuer_unavailable"  # unknown keys
    answer = await client.get(STATUS, headers={"Authorization": f"Bearer {provider.token()}"})
    assert answer.status_code == 200
    assert provider.requests == 1


async def test_a_thousand_unknown_keys_make_the_issuer_be_asked_once(
    client: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    """However many tokens with unknown keys arrive."""
    claims = encoded(claims_of(provider)).decode()
    for number in range(1000):
        header = encoded({"alg": "RS256", "kid": f"unknown {number}"}).decode()
        answer = await client.get(STATUS, headers={"Authorization": f"Bearer {header}.{claims}.AAAA"})
        assert answer.status_code == (503 if number else 401)
        assert answer.headers["Retry-After" if number else "WWW-Authenticate"]
    assert provider.requests == 1


@pytest.mark.parametrize("header", ["Basic dTpw", "Bearer", "Bearer ", "token", "", "Bearer Bearer", "Digest x"])
async def test_other_schemes_are_refused(client: httpx.AsyncClient, header: str) -> None:
    """An Authorization header that holds no bearer token is a bad token."""
    answer = await client.get(STATUS, headers={"Authorization": header, "X-Session-ID": "g2wsht"})
    assert answer.status_code == 401


async def test_two_tokens_are_refused(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """Two tokens in one request are refused, even when they are equal."""
    for other in ("b", "a"):
        headers = [("Authorization", bearer("a")["Authorization"]), ("Authorization", bearer(other)["Authorization"])]
        assert (await client.get(STATUS, headers=headers)).status_code == 401


async def test_a_token_elsewhere_is_none(client: httpx.AsyncClient, provider: IdentityProvider) -> None:
    """Links and cookies end up in logs, and browsers send cookies for other sites' pages (RFC 6750, section 5.3)."""
    token = provider.token()
    assert (await client.get(STATUS, params={"access_token": token})).status_code == 401
    assert (await client.get(STATUS, headers={"Cookie": f"access_token={token}"})).status_code == 401


HONEST: dict[str, Forgery] = {
    "as usual": claimed(),
    "audiences in a list": claimed(aud=["another audience", AUDIENCE]),
    "valid for a while": claimed(nbf=PAST),
    "an access token by RFC 9068": claimed(headers={"typ": "at+jwt"}),
    "no type": claimed(headers={"typ": None}),
    "fractions of seconds": claimed(exp=NOW.timestamp() + 3600.5, iat=NOW.timestamp() + 0.25),
    "clocks that differ a little": lambda provider: provider.token(
        exp=datetime.now(UTC) - timedelta(seconds=2), iat=PAST
    ),
}


@pytest.mark.parametrize("token", HONEST.values(), ids=HONEST)
async def test_what_issuers_do_write_is_believed(
    client: httpx.AsyncClient, provider: IdentityProvider, token: Forgery
) -> None:
    """The table refuses forgeries, not everybody."""
    assert (await client.get(STATUS, headers={"Authorization": f"Bearer {token(provider)}"})).status_code == 200


async def test_a_repeated_claim_is_read_alike_by_every_check(
    client: httpx.AsyncClient, provider: IdentityProvider
) -> None:
    """The last one counts (RFC 7519, section 4), for the issuer that is looked up and for the one that is verified."""
    claims = json.dumps(claims_of(provider))[1:-1]
    for first, last, status in ((provider.issuer, "https://evil.example/", 401), ("https://x/", provider.issuer, 200)):
        payload = f'{{"iss": "{first}", {claims}, "iss": "{last}"}}'.encode()
        token = written({"alg": "RS256", "kid": "k1"}, payload, provider)
        answer = await client.get(STATUS, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == status


async def test_both_algorithms_are_believed(client: httpx.AsyncClient, provider: IdentityProvider) -> None:
    """RS256 and ES256, each with its own key."""
    curve = provider.token(key=provider.curve_key, algorithm="ES256", headers={"kid": "k2"})
    for token in (provider.token(), curve):
        assert (await client.get(STATUS, headers={"Authorization": f"Bearer {token}"})).status_code == 200


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")
async def test_keys_that_prove_nothing_are_not_used(
    client: httpx.AsyncClient, container: Container, provider: IdentityProvider, bearer: Bearer
) -> None:
    """Secrets, short keys, private keys and keys for encryption that an issuer publishes by mistake."""
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - that is what is tested

    def published(key: rsa.RSAPrivateKey, **fields: Any) -> dict[str, Any]:
        return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "alg": "RS256", **fields}

    private = {**jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER, as_dict=True), "alg": "RS256", "kid": "private"}
    del private["key_ops"]
    provider.more_keys = [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I", "kid": "secret", "alg": "HS256"},
        published(short, kid="short"),
        published(STRANGER, kid="encryption", use="enc"),
        published(STRANGER, kid="to encrypt", key_ops=["encrypt"]),
        private,
    ]
    for kid, key in {"short": short, "encryption": STRANGER, "to encrypt": STRANGER, "private": STRANGER}.items():
        container.token_verifier.reset()  # so that the issuer is asked for each key
        assert (await client.get(STATUS, headers=bearer(key=key, headers={"kid": kid}))).status_code == 401
    token = jwt.encode({"sub": "x"}, b"secret-secret-secret-secret-secr", algorithm="HS256", headers={"kid": "secret"})
    assert (await client.get(STATUS, headers={"Authorization": f"Bearer {token}"})).status_code == 401
    assert provider.requests == 4
