"""The public keys of a token issuer, fetched when needed and kept."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httpx
import jwt
import structlog

from shopassist.errors import IssuerUnavailableError

logger = structlog.get_logger(__name__)

FRESH_SECONDS = 600
STALE_SECONDS = 24 * 3600
SHORTEST_RSA = 2048
LARGEST_DOCUMENT = 1_000_000
RETRY_SECONDS = 30
"""However many tokens with unknown keys arrive, the issuer is asked once in this time."""


class Keys(Protocol):
    """Public keys by their id."""

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The key, or None when the issuer has no such key.

        Raises `IssuerUnavailableError` when no key is known, so that nothing can be said of a token.
        """


class IssuerKeys:
    """Implements `Keys` with the issuer's JWKS."""

    def __init__(self, fetch: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """`fetch` gets the JWKS document."""
        self._fetch = fetch
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        age = time.monotonic() - self._fetched_at
        if age > STALE_SECONDS or key_id not in self._keys:
            await self._refresh()
            if not self._keys:
                raise IssuerUnavailableError
            return self._keys.get(key_id)
        if age > FRESH_SECONDS and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh())
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        async with self._lock:
            now = time.monotonic()
            if now - self._asked_at < RETRY_SECONDS:
                return
            self._asked_at = now
            try:
                document = await self._fetch()
                self._keys = {key.key_id: key for key in usable(document) if key.key_id}
                self._fetched_at = now
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as failure:
                logger.warning("issuer_keys_unavailable", error=type(failure).__name__)
                if now - self._fetched_at > STALE_SECONDS:
                    self._keys = {}


def usable(document: dict[str, Any]) -> list[jwt.PyJWK]:
    """The signing keys of a JWKS document that this product can use."""
    keys = []
    for entry in document["keys"]:
        if entry.get("use", "sig") != "sig" or entry.get("kty") not in {"RSA", "EC"} or "d" in entry:
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
        if getattr(key.key, "key_size", 0) >= (SHORTEST_RSA if entry["kty"] == "RSA" else 0):
            keys.append(key)
    return keys


def jwks_of(issuer: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Fetches the JWKS of `issuer` (with its trailing slash): where Auth0 has it, else where discovery says."""

    async def fetch() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=5, follow_redirects=False) as client:
            response = await client.get(f"{issuer}.well-known/jwks.json")
            if response.status_code == httpx.codes.NOT_FOUND:
                discovery = await client.get(f"{issuer}.well-known/openid-configuration")
                response = await client.get(trustworthy(discovery.raise_for_status().json()["jwks_uri"]))
            if len(response.raise_for_status().content) > LARGEST_DOCUMENT:
                raise ValueError("The issuer's document is too large.")
            document: dict[str, Any] = response.json()
            return document

    return fetch


def trustworthy(link: str) -> str:
    """`link`, if keys that come over it can be believed. Raises `ValueError` unless it is HTTPS or of this machine."""
    url = httpx.URL(link)
    if url.scheme != "https" and url.host not in {"127.0.0.1", "::1", "localhost"}:
        raise ValueError("Keys must come over HTTPS.")
    return link
