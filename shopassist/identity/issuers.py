"""Trusted token issuers, their public keys, and the development issuer for local use."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shopassist.errors import IssuerUnavailableError
from shopassist.identity.key_derivation import read_or_create_file
from shopassist.identity.tokens import Issuer, TokenVerifier
from shopassist.settings import Settings

logger = structlog.get_logger(__name__)

JWKS_PATH = ".well-known/jwks.json"
DISCOVERY_PATH = ".well-known/openid-configuration"
MAX_DOCUMENT_BYTES = 1_000_000
FETCH_TIMEOUT_SECONDS = 5
FRESH_SECONDS = 600
STALE_SECONDS = 24 * 3600
RETRY_SECONDS = 30
"""Minimum time between two requests to the issuer, even when tokens with unknown keys arrive."""

MIN_RSA_BITS = 2048

DEVELOPMENT_ISSUER = "https://development.shopassist.invalid/"
DEVELOPMENT_AUDIENCE = "shopassist-development"
DEVELOPMENT_KEY_ID = "development"
DEVELOPMENT_TOKEN_LIFETIME = timedelta(hours=24)
DEVELOPMENT_KEY_FILE_NAME = "development-issuer.pem"


def token_verifier(settings: Settings) -> TokenVerifier:
    """Build the verifier of the configured identity provider and, for local use only, of the development issuer."""
    issuers = []
    identity = settings.identity
    if identity.issuer and identity.audience:
        keys = IssuerKeys(build_jwks_fetcher(identity.issuer))
        issuers.append(Issuer(identity.issuer_names, identity.audience, keys))
    if is_development_issuer_trusted(settings):
        issuers.append(DevelopmentIssuer(get_development_key_file(settings)).issuer())
    return TokenVerifier(issuers)


def build_jwks_fetcher(issuer: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return a function that fetches the JWKS of `issuer` (with its trailing slash).

    It tries the path that Auth0 uses, then the one in the discovery document. It raises `httpx.HTTPError` or
    `ValueError` when there is no valid document.
    """

    async def fetch() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, follow_redirects=False) as client:
            try:
                return await fetch_document(client, f"{issuer}{JWKS_PATH}")
            except (httpx.HTTPStatusError, json.JSONDecodeError):
                discovery = await fetch_document(client, f"{issuer}{DISCOVERY_PATH}")
            if str(discovery.get("issuer")).rstrip("/") != issuer.rstrip("/"):
                raise ValueError("The document is another issuer's (OpenID Connect Discovery, section 4.3).")
            return await fetch_document(client, str(discovery.get("jwks_uri")))

    return fetch


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
    """Implements `KeySource` with the issuer's JWKS: fresh for 10 minutes, kept for a day if the issuer fails."""

    def __init__(
        self, fetch: Callable[[], Awaitable[dict[str, Any]]], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Get the JWKS document from `fetch` when a key is needed."""
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._requested_at = float("-inf")
        self._refresh_task: asyncio.Task[None] | None = None

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        if self._keys and self._monotonic() - self._fetched_at > STALE_SECONDS:
            self._keys = {}
        if key_id not in self._keys:
            # Shielded, since other requests wait for the same refresh when this one is cancelled.
            if task := self._start_refresh():
                await asyncio.shield(task)
            if not self._keys:
                raise IssuerUnavailableError
        elif self._monotonic() - self._fetched_at > FRESH_SECONDS:
            self._start_refresh()
        return self._keys.get(key_id)

    def _start_refresh(self) -> asyncio.Task[None] | None:
        """Return the running refresh or a new one; None shortly after the last request to the issuer."""
        if self._refresh_task is None or self._refresh_task.done():
            if self._monotonic() - self._requested_at < RETRY_SECONDS:
                return None
            self._requested_at = self._monotonic()
            self._refresh_task = asyncio.create_task(self._refresh())
        return self._refresh_task

    async def _refresh(self) -> None:
        started_at = self._monotonic()
        try:
            keys = {key.key_id: key for key in parse_jwks(await self._fetch()) if key.key_id}
        except Exception as failure:  # noqa: BLE001 - after any failure the earlier keys stay in use
            logger.warning("issuer_keys_unavailable", error=type(failure).__name__)
            return
        if not keys:  # more likely a fault of the issuer than the end of all its keys
            logger.warning("issuer_keys_unavailable", reason="no usable key")
            return
        self._keys, self._fetched_at = keys, started_at


def parse_jwks(document: dict[str, Any]) -> list[jwt.PyJWK]:
    """Return the usable verification keys of a JWKS document. Raises `KeyError` or `TypeError` for other documents."""
    keys = []
    for entry in document["keys"]:
        if not isinstance(entry, dict) or not is_verification_key(entry):
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if getattr(key.key, "key_size", 0) >= (MIN_RSA_BITS if entry["kty"] == "RSA" else 0):
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


class DevelopmentIssuer:
    """Mints tokens for local use; implements `KeySource`."""

    def __init__(self, key_file: Path) -> None:
        """Create the key in `key_file`, readable by its owner only, at the first use."""
        self._key_file = key_file

    def issuer(self) -> Issuer:
        """Return this issuer for the verifier."""
        return Issuer((DEVELOPMENT_ISSUER,), DEVELOPMENT_AUDIENCE, self)

    async def get(self, key_id: str) -> jwt.PyJWK | None:
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
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the development key must be an RSA key")
        return key


def generate_private_key() -> bytes:
    """Return a new private key as PEM."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def is_development_issuer_trusted(settings: Settings) -> bool:
    """Return whether the server is for local use: no production, embedded database, loopback address."""
    return not settings.server.production and settings.embedded_database and is_loopback_host(settings.server.host)


def get_development_key_file(settings: Settings) -> Path:
    """Return the file of the development issuer's key."""
    return settings.database.data_folder / DEVELOPMENT_KEY_FILE_NAME


def is_loopback_host(host: str) -> bool:
    """Return whether a server bound to `host` is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
