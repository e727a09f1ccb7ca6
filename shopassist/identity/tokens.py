"""Verify access tokens: JSON Web Tokens of OpenID Connect issuers (RFC 7519, RFC 9068)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt

from shopassist.errors import InvalidInputError, InvalidTokenError
from shopassist.identity.caller import Caller
from shopassist.identity.jwks import KeySource
from shopassist.text import validate_user_id

ALGORITHMS = ["RS256", "ES256"]
SCOPE_CLAIMS = ("scope", "scp", "permissions")
"""Where issuers say what a token allows: RFC 8693, Microsoft and Okta, Auth0."""

LEEWAY = timedelta(seconds=10)
MAX_LIFETIME = timedelta(days=30)
MAX_TOKEN_LENGTH = 16 * 1024
COMPACT_FORM = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")
"""How a signed token is written (RFC 7515, section 7.1); lenient decoders skip what does not belong there."""

ACCESS_TOKEN_TYPES = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}
"""What an access token may say it is. Other tokens of the same issuer, such as logout tokens, say something else."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer that is believed: the spellings of its name, the audience that a token must name, and its keys."""

    names: tuple[str, ...]
    audience: str
    keys: KeySource


def parse_names(claim: object) -> list[str]:
    """The names in a claim that is a string of words or a list of strings."""
    if isinstance(claim, str):
        return claim.split()
    return [name for name in claim if isinstance(name, str)] if isinstance(claim, list) else []


class TokenVerifier:
    """Turns a token into the user it proves."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Without issuers no token is believed."""
        self._issuers = {name: issuer for issuer in issuers for name in issuer.names}

    async def verify(self, token: str) -> Caller:
        """The registered user. Raises `InvalidTokenError`, and `IssuerUnavailableError` when nothing can be said."""
        if len(token) > MAX_TOKEN_LENGTH or not COMPACT_FORM.fullmatch(token):
            raise InvalidTokenError
        try:
            claims = await self._claims(token)
            return build_caller(claims)
        except (jwt.PyJWTError, InvalidInputError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise InvalidTokenError from None

    async def _claims(self, token: str) -> dict[str, Any]:
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
    """Whether a token says that it is an access token, signed in one of our ways with a key that it names."""
    kind = header.get("typ", "JWT")
    return (
        header.get("alg") in ALGORITHMS
        and "crit" not in header
        and isinstance(kind, str)
        and kind.lower() in ACCESS_TOKEN_TYPES
        and isinstance(header.get("kid"), str)
    )


def get_numeric_date(claims: dict[str, Any], name: str) -> float:
    """The claim as seconds since the epoch. Raises `TypeError` for what is no number (RFC 7519, section 2)."""
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def build_caller(claims: dict[str, Any]) -> Caller:
    """The user of verified claims."""
    scopes = {name for claim in SCOPE_CLAIMS for name in parse_names(claims.get(claim))}
    profile = {name: value for name in ("email", "name", "picture") if isinstance(value := claims.get(name), str)}
    return Caller(user_id=validate_user_id(claims["sub"]), is_guest=False, scopes=frozenset(scopes), **profile)
