"""Verify access tokens: JSON Web Tokens of OpenID Connect issuers (RFC 7519, RFC 9068)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import jwt

from shopassist.errors import InvalidInputError, InvalidTokenError
from shopassist.identity.caller import Caller
from shopassist.text import validate_user_id

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


class KeySource(Protocol):
    """Public keys of an issuer by their id."""

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """Return the key, or None when the issuer has no such key.

        Raises `IssuerUnavailableError` when no key of the issuer is known, so that no token can be verified.
        """


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer: the spellings of its name, the audience that tokens must name, and its keys."""

    names: tuple[str, ...]
    audience: str
    keys: KeySource


class TokenVerifier:
    """Verifies access tokens of the trusted issuers."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Without issuers every token is refused."""
        self._issuers = {name: issuer for issuer in issuers for name in issuer.names}

    async def verify(self, token: str) -> Caller:
        """Return the registered user. Raises `InvalidTokenError`, or `IssuerUnavailableError` when keys are missing."""
        if len(token) > MAX_TOKEN_LENGTH or not COMPACT_FORM.fullmatch(token):
            raise InvalidTokenError
        try:
            return build_caller(await self._verify_claims(token))
        except (jwt.PyJWTError, InvalidInputError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise InvalidTokenError from None

    async def _verify_claims(self, token: str) -> dict[str, Any]:
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
        header = unverified["header"]
        issuer = self._issuers.get(unverified["payload"].get("iss", ""))
        if issuer is None or not is_acceptable_header(header):
            raise InvalidTokenError
        key = await issuer.keys.get(header["kid"])
        if key is None or key.algorithm_name != header["alg"]:
            raise InvalidTokenError
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=issuer.audience,
            issuer=issuer.names,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        if not 0 <= get_numeric_date(claims, "exp") - get_numeric_date(claims, "iat") <= MAX_LIFETIME.total_seconds():
            raise InvalidTokenError
        if "nbf" in claims:
            get_numeric_date(claims, "nbf")
        return claims


def is_acceptable_header(header: dict[str, Any]) -> bool:
    """Return whether the header is of an access token with a known algorithm and a key id."""
    token_type = header.get("typ", "JWT")
    return (
        header.get("alg") in ALGORITHMS
        and "crit" not in header
        and isinstance(token_type, str)
        and token_type.lower() in ACCESS_TOKEN_TYPES
        and isinstance(header.get("kid"), str)
    )


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
