"""Verify access tokens of OpenID Connect issuers (RFC 7519, RFC 9068); an issuer of our own for local use."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil
from typing import Any

import httpx
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shopassist.db.dsn import is_local_host
from shopassist.errors import InvalidInputError, InvalidTokenError, IssuerUnavailableError, StartupError, TokenRefusal
from shopassist.identity.caller import Caller
from shopassist.identity.key_derivation import read_or_create_file
from shopassist.settings import Settings
from shopassist.text import validate_user_id

logger = structlog.get_logger(__name__)

ALGORITHMS = ["RS256", "ES256"]
SCOPE_CLAIMS = ("scope", "scp", "permissions")
"""Claims that list scopes: RFC 8693; Microsoft and Okta; Auth0."""

LEEWAY = timedelta(seconds=10)
MAX_LIFETIME = timedelta(days=30)
MAX_TOKEN_LENGTH = 16 * 1024
COMPACT_FORM = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")
"""Form of a signed token (RFC 7515, section 7.1); lenient decoders would skip characters that do not belong there."""

ACCESS_TOKEN_TYPES = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}
"""Accepted values of `typ`. Other tokens of the same issuer, such as logout tokens, have another."""


GetKey = Callable[[str], Awaitable[jwt.PyJWK | None]]
"""Returns an issuer's public key by its id, or None when the issuer has no such key.

Raises `IssuerUnavailableError` when that cannot be said: the issuer does not answer or was asked a moment ago.
"""

INVALID_TOKEN_ERRORS = (
    jwt.PyJWTError,
    InvalidInputError,
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
)
REFUSALS: dict[type[Exception], TokenRefusal] = {
    jwt.ExpiredSignatureError: TokenRefusal.EXPIRED,
    jwt.ImmatureSignatureError: TokenRefusal.NOT_YET_VALID,
    jwt.InvalidAudienceError: TokenRefusal.WRONG_AUDIENCE,
    jwt.InvalidSignatureError: TokenRefusal.BAD_SIGNATURE,
}
"""Kinds of refusal by what PyJWT raises; all other errors are about a claim."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer: the spellings of its name, the audience that tokens must name, and its keys."""

    names: tuple[str, ...]
    audience: str
    get_key: GetKey


class TokenVerifier:
    """Verifies access tokens of the trusted issuers."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Without issuers every token is refused."""
        self._issuers = {name: issuer for issuer in issuers for name in issuer.names}

    async def verify(self, token: str) -> Caller:
        """Return the registered user. Raises `InvalidTokenError`, or `IssuerUnavailableError` when keys are missing."""
        if not self._issuers:
            raise InvalidTokenError(TokenRefusal.NO_ISSUER)
        if len(token) > MAX_TOKEN_LENGTH or not COMPACT_FORM.fullmatch(token):
            raise InvalidTokenError(TokenRefusal.MALFORMED)
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except INVALID_TOKEN_ERRORS:
            raise InvalidTokenError(TokenRefusal.MALFORMED) from None
        try:
            return build_caller(await self._verify_claims(token, unverified["header"], unverified["payload"]))
        except INVALID_TOKEN_ERRORS as error:
            raise InvalidTokenError(find_refusal(error)) from None

    async def _verify_claims(self, token: str, header: dict[str, Any], unverified: dict[str, Any]) -> dict[str, Any]:
        name = unverified.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise InvalidTokenError(TokenRefusal.WRONG_ISSUER)
        if fault := find_header_fault(header):
            raise InvalidTokenError(fault)
        key = await issuer.get_key(header["kid"])
        if key is None:
            raise InvalidTokenError(TokenRefusal.UNKNOWN_KEY)
        if key.algorithm_name != header["alg"]:
            raise InvalidTokenError(TokenRefusal.WRONG_ALGORITHM)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=issuer.audience,
            issuer=issuer.names,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        lifetime = get_numeric_date(claims, "exp") - get_numeric_date(claims, "iat")
        if not 0 <= lifetime <= MAX_LIFETIME.total_seconds():
            raise InvalidTokenError(TokenRefusal.LIFETIME_TOO_LONG if lifetime > 0 else TokenRefusal.INVALID_CLAIM)
        if "nbf" in claims:
            get_numeric_date(claims, "nbf")
        return claims


def find_refusal(error: Exception) -> TokenRefusal:
    """Return the kind of an error of verification."""
    if isinstance(error, jwt.MissingRequiredClaimError) and error.claim == "aud":
        return TokenRefusal.WRONG_AUDIENCE
    return REFUSALS.get(type(error), TokenRefusal.INVALID_CLAIM)


def find_header_fault(header: dict[str, Any]) -> TokenRefusal | None:
    """Return None for the header of an access token with a known algorithm and a key id."""
    token_type = header.get("typ", "JWT")
    if header.get("alg") not in ALGORITHMS:
        return TokenRefusal.WRONG_ALGORITHM
    if "crit" in header or not isinstance(token_type, str) or token_type.lower() not in ACCESS_TOKEN_TYPES:
        return TokenRefusal.WRONG_TYPE
    return None if isinstance(header.get("kid"), str) else TokenRefusal.UNKNOWN_KEY


def get_numeric_date(claims: dict[str, Any], name: str) -> float:
    """Return a claim in seconds since the epoch. Raises `TypeError` for other values (RFC 7519, section 2)."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def parse_names(claim: object) -> list[str]:
    """Return the names in a claim that is a space-separated string or a list of strings."""
    if isinstance(claim, str):
        return claim.split()
    return [name for name in claim if isinstance(name, str)] if isinstance(claim, list) else []


def build_caller(claims: dict[str, Any]) -> Caller:
    """Return the user of verified claims."""
    scopes = {name for claim in SCOPE_CLAIMS for name in parse_names(claims.get(claim))}
    profile = {name: value for name in ("email", "name", "picture") if isinstance(value := claims.get(name), str)}
    return Caller(user_id=validate_user_id(claims["sub"]), is_guest=False, scopes=frozenset(scopes), **profile)


JWKS_PATH = ".well-known/jwks.json"
DISCOVERY_PATH = ".well-known/openid-configuration"
MAX_DOCUMENT_BYTES = 1_000_000
FETCH_TIMEOUT_SECONDS = 5
FRESH_SECONDS = 600
STALE_SECONDS = 24 * 3600
RETRY_SECONDS = 30
"""Minimum time between two requests to the issuer, even when tokens with unknown keys arrive."""

MIN_RSA_BITS = 2048


async def fetch_jwks(issuer: str) -> dict[str, Any]:
    """Return the JWKS of `issuer` (with its trailing slash), from Auth0's path or the one that its discovery names.

    Raises `httpx.HTTPError` or `ValueError` when there is no valid document.
    """
    async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, follow_redirects=False) as client:
        try:
            return await fetch_document(client, f"{issuer}{JWKS_PATH}")
        except (httpx.HTTPStatusError, json.JSONDecodeError):
            discovery = await fetch_document(client, f"{issuer}{DISCOVERY_PATH}")
        if str(discovery.get("issuer")).rstrip("/") != issuer.rstrip("/"):
            raise ValueError("The document is another issuer's (OpenID Connect Discovery, section 4.3).")
        return await fetch_document(client, str(discovery.get("jwks_uri")))


async def fetch_document(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return the JSON object at `url`. Raises `ValueError` for one that is untrusted, too large or not an object."""
    if not is_trusted_url(url):
        raise ValueError("Keys must come over HTTPS.")
    content = bytearray()
    async with client.stream("GET", url) as response:
        response.raise_for_status()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > MAX_DOCUMENT_BYTES:
                raise ValueError("The issuer's document is too large.")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("The issuer's document is no JSON object.")  # noqa: TRY004 - the input is wrong, not the code
    return document


def is_trusted_url(url: str) -> bool:
    """Return whether `url` is HTTPS, or HTTP on this machine."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parsed.scheme == "https" or (parsed.scheme == "http" and parsed.host in {"127.0.0.1", "::1", "localhost"})


class IssuerKeys:
    """The issuer's keys from its JWKS: fresh for 10 minutes, kept for a day if the issuer fails."""

    def __init__(
        self, fetch: Callable[[], Awaitable[dict[str, Any]]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Get the JWKS document from `fetch` when a key is needed."""
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._withdrawn: set[str] = set()
        self._fetched_at = self._requested_at = float("-inf")
        self._refresh_task: asyncio.Task[bool] | None = None

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """Do what `GetKey` says."""
        age = self._monotonic() - self._fetched_at
        if age > STALE_SECONDS:
            self._keys = {}
        key = self._keys.get(key_id)
        refresh = self._start_refresh() if key is None or age > FRESH_SECONDS else None
        if key is not None:
            return key
        # Shielded, since other requests wait for the same refresh when this one is cancelled.
        was_fetched = refresh is not None and await asyncio.shield(refresh)
        if was_fetched or (self._keys and key_id in self._withdrawn):
            return self._keys.get(key_id)
        retry_after = max(1, ceil(self._requested_at + RETRY_SECONDS - self._monotonic()))
        kind = TokenRefusal.UNKNOWN_KEY if self._keys else TokenRefusal.KEYS_UNAVAILABLE
        raise IssuerUnavailableError(kind, retry_after)

    def _start_refresh(self) -> asyncio.Task[bool] | None:
        """Return the running refresh or a new one; None shortly after the last request to the issuer."""
        if self._refresh_task is None or self._refresh_task.done():
            if self._monotonic() - self._requested_at < RETRY_SECONDS:
                return None
            self._requested_at = self._monotonic()
            self._refresh_task = asyncio.create_task(self._refresh())
        return self._refresh_task

    async def _refresh(self) -> bool:
        """Fetch the keys; return whether that succeeded."""
        started_at = self._monotonic()
        try:
            keys = {key.key_id: key for key in parse_jwks(await self._fetch()) if key.key_id}
        except Exception as failure:  # noqa: BLE001 - after any failure the earlier keys stay in use
            logger.warning("issuer_keys_unavailable", error=type(failure).__name__)
            return False
        if not keys:  # more likely a fault of the issuer than the end of all its keys
            logger.warning("issuer_keys_unavailable", reason="no usable key")
            return False
        self._withdrawn = (self._withdrawn | self._keys.keys()) - keys.keys()
        self._keys, self._fetched_at = keys, started_at
        return True


def parse_jwks(document: dict[str, Any]) -> list[jwt.PyJWK]:
    """Return the usable verification keys of a JWKS document. Raises `KeyError` or `TypeError` for other documents."""
    keys = []
    for entry in document["keys"]:
        with suppress(jwt.PyJWTError, ValueError, TypeError, KeyError):
            if isinstance(entry, dict) and is_verification_key(entry):
                key = jwt.PyJWK.from_dict(entry)
                if entry["kty"] == "EC" or key.key.key_size >= MIN_RSA_BITS:
                    keys.append(key)
    return keys


def is_verification_key(entry: dict[str, Any]) -> bool:
    """Return whether an entry is a public key for verifying signatures (RFC 7517, sections 4.2 and 4.3)."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("kty") in ("RSA", "EC")
        and "d" not in entry
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


DEVELOPMENT_ISSUER = "https://development.shopassist.invalid/"
DEVELOPMENT_AUDIENCE = "shopassist-development"
DEVELOPMENT_KEY_ID = "development"
DEVELOPMENT_TOKEN_LIFETIME = timedelta(hours=24)
DEVELOPMENT_KEY_FILE_NAME = "development-issuer.pem"


class DevelopmentIssuer:
    """Mints tokens for local use."""

    def __init__(self, settings: Settings) -> None:
        """Create the key in the data folder, readable by its owner only, at the first use."""
        self._key_file = settings.database.data_folder / DEVELOPMENT_KEY_FILE_NAME

    def check_key(self) -> None:
        """Raise `StartupError` if there is a key that cannot be used."""
        if self._key_file.exists():
            self._get_private_key()

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """Do what `GetKey` says."""
        if key_id != DEVELOPMENT_KEY_ID:
            return None
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._get_private_key().public_key(), as_dict=True)
        return jwt.PyJWK.from_dict({**public, "alg": "RS256", "kid": DEVELOPMENT_KEY_ID})

    def mint(self, subject: str, scopes: list[str], lifetime: timedelta = DEVELOPMENT_TOKEN_LIFETIME) -> str:
        """Return a token for `subject`."""
        now = datetime.now(UTC)
        claims = {
            "iss": DEVELOPMENT_ISSUER,
            "aud": DEVELOPMENT_AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + lifetime,
            "scope": " ".join(scopes),
        }
        return jwt.encode(claims, self._get_private_key(), algorithm="RS256", headers={"kid": DEVELOPMENT_KEY_ID})

    def _get_private_key(self) -> rsa.RSAPrivateKey:
        pem = read_or_create_file(self._key_file, generate_private_key)
        with suppress(ValueError, TypeError, UnsupportedAlgorithm):
            key = serialization.load_pem_private_key(pem, password=None)
            if isinstance(key, rsa.RSAPrivateKey):
                return key
        raise StartupError(f"{self._key_file} holds no private RSA key: remove it to get a new one.")


def generate_private_key() -> bytes:
    """Return a new private key as PEM."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def trusts_development_tokens(settings: Settings) -> bool:
    """Return whether tokens for local use are trusted: no production, embedded database, loopback address."""
    server = settings.server
    return settings.embedded_database and not server.production and is_local_host(server.host)


def token_verifier(settings: Settings) -> TokenVerifier:
    """Build the verifier of the configured identity provider and of the development issuer, where that is trusted."""
    issuers = []
    identity = settings.identity
    if identity.issuer and identity.audience:
        keys = IssuerKeys(partial(fetch_jwks, identity.issuer))
        issuers.append(Issuer(identity.issuer_names, identity.audience, keys.get))
    if trusts_development_tokens(settings):
        own = DevelopmentIssuer(settings)
        issuers.append(Issuer((DEVELOPMENT_ISSUER,), DEVELOPMENT_AUDIENCE, own.get))
    return TokenVerifier(issuers)
