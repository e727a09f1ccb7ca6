"""Fetch and cache the public keys of a token issuer."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httpx
import jwt
import structlog

from shopassist.errors import IssuerUnavailableError

logger = structlog.get_logger(__name__)

JWKS_PATH = ".well-known/jwks.json"
DISCOVERY_PATH = ".well-known/openid-configuration"
MAX_DOCUMENT_BYTES = 1_000_000
TIMEOUT_SECONDS = 5


def build_jwks_fetcher(issuer: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Fetches the JWKS of `issuer` (with its trailing slash): where Auth0 has it, else where discovery says.

    What it gives raises `httpx.HTTPError` and `ValueError` for whatever is no such document.
    """

    async def fetch() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
            try:
                return await fetch_document(client, f"{issuer}{JWKS_PATH}")
            except (httpx.HTTPStatusError, json.JSONDecodeError):
                found = await fetch_document(client, f"{issuer}{DISCOVERY_PATH}")
            if str(found.get("issuer")).rstrip("/") != issuer.rstrip("/"):
                raise ValueError("The document is another issuer's (OpenID Connect Discovery, section 4.3).")
            return await fetch_document(client, str(found.get("jwks_uri")))

    return fetch


async def fetch_document(client: httpx.AsyncClient, link: str) -> dict[str, Any]:
    """The JSON object at `link`."""
    if not is_trusted_url(link):
        raise ValueError("Keys must come over HTTPS.")
    content = bytearray()
    async with client.stream("GET", link) as response:
        response.raise_for_status()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > MAX_DOCUMENT_BYTES:
                raise ValueError("The issuer's document is too large.")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("The issuer's document is no JSON object.")  # noqa: TRY004 - not a mistake of the program's
    return found


def is_trusted_url(link: str) -> bool:
    """Whether what comes over `link` can be believed: it is HTTPS, or of this machine."""
    try:
        url = httpx.URL(link)
    except httpx.InvalidURL:
        return False
    return url.scheme == "https" or (url.scheme == "http" and url.host in {"127.0.0.1", "::1", "localhost"})


FRESH_SECONDS = 600
STALE_SECONDS = 24 * 3600
MIN_RSA_BITS = 2048
RETRY_SECONDS = 30
"""However many tokens with unknown keys arrive, the issuer is asked once in this time."""


class KeySource(Protocol):
    """Public keys by their id."""

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The key, or None when the issuer has no such key.

        Raises `IssuerUnavailableError` when no key is known, so that nothing can be said of a token.
        """


def is_verification_key(entry: dict[str, Any]) -> bool:
    """Whether an entry is a public key, and one to verify signatures with (RFC 7517, sections 4.2 and 4.3)."""
    operations = entry.get("key_ops", ["verify"])
    return (
        entry.get("kty") in ("RSA", "EC")
        and "d" not in entry
        and entry.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
    )


class IssuerKeys:
    """Implements `KeySource` with the issuer's JWKS: fresh for 10 minutes, and for a day while the issuer is away."""

    def __init__(
        self, fetch: Callable[[], Awaitable[dict[str, Any]]], seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """`fetch` gets the JWKS document, `seconds` a time that never goes back."""
        self._fetch = fetch
        self._seconds = seconds
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        self._forget_stale()
        if key_id not in self._keys:
            # Shielded: a client that goes away must not take along the answer that others wait for.
            if refreshing := self._refreshed():
                await asyncio.shield(refreshing)
            if not self._keys:
                raise IssuerUnavailableError
        elif self._seconds() - self._fetched_at > FRESH_SECONDS:
            self._refreshed()
        return self._keys.get(key_id)

    def _forget_stale(self) -> None:
        if self._keys and self._seconds() - self._fetched_at > STALE_SECONDS:
            self._keys = {}

    def _refreshed(self) -> asyncio.Task[None] | None:
        """The refresh that is under way, or a new one; None where the issuer was asked a moment ago."""
        if self._refreshing is None or self._refreshing.done():
            if self._seconds() - self._asked_at < RETRY_SECONDS:
                return None
            self._asked_at = self._seconds()
            self._refreshing = asyncio.create_task(self._refresh())
        return self._refreshing

    async def _refresh(self) -> None:
        began = self._seconds()
        try:
            keys = {key.key_id: key for key in parse_jwks(await self._fetch()) if key.key_id}
        except Exception as failure:  # noqa: BLE001 - whatever an issuer answers, the keys of before are what we have
            logger.warning("issuer_keys_unavailable", error=type(failure).__name__)
            return
        if not keys:  # a mishap of the issuer's, not the end of all its tokens
            logger.warning("issuer_keys_unavailable", reason="no usable key")
            return
        self._keys, self._fetched_at = keys, began


def parse_jwks(document: dict[str, Any]) -> list[jwt.PyJWK]:
    """The signing keys of a JWKS document that this product can use. Raises `KeyError` and `TypeError` for others."""
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
