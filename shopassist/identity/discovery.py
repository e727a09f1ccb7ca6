"""Where an issuer keeps its public keys, and how they are fetched."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

KEYS = ".well-known/jwks.json"
DISCOVERY = ".well-known/openid-configuration"
LARGEST_DOCUMENT = 1_000_000
TIMEOUT_SECONDS = 5


def jwks_of(issuer: str) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Fetches the JWKS of `issuer` (with its trailing slash): where Auth0 has it, else where discovery says.

    What it gives raises `httpx.HTTPError` and `ValueError` for whatever is no such document.
    """

    async def fetch() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False) as client:
            try:
                return await document(client, f"{issuer}{KEYS}")
            except (httpx.HTTPStatusError, json.JSONDecodeError):
                found = await document(client, f"{issuer}{DISCOVERY}")
            if str(found.get("issuer")).rstrip("/") != issuer.rstrip("/"):
                raise ValueError("The document is another issuer's (OpenID Connect Discovery, section 4.3).")
            return await document(client, str(found.get("jwks_uri")))

    return fetch


async def document(client: httpx.AsyncClient, link: str) -> dict[str, Any]:
    """The JSON object at `link`."""
    if not is_trustworthy(link):
        raise ValueError("Keys must come over HTTPS.")
    content = bytearray()
    async with client.stream("GET", link) as response:
        response.raise_for_status()
        async for part in response.aiter_bytes():
            content += part
            if len(content) > LARGEST_DOCUMENT:
                raise ValueError("The issuer's document is too large.")
    found = json.loads(content)
    if not isinstance(found, dict):
        raise ValueError("The issuer's document is no JSON object.")  # noqa: TRY004 - not a mistake of the program's
    return found


def is_trustworthy(link: str) -> bool:
    """Whether what comes over `link` can be believed: it is HTTPS, or of this machine."""
    try:
        url = httpx.URL(link)
    except httpx.InvalidURL:
        return False
    return url.scheme == "https" or (url.scheme == "http" and url.host in {"127.0.0.1", "::1", "localhost"})
