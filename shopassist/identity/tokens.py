"""Access tokens: JSON Web Tokens of an OpenID Connect issuer (RFC 7519, RFC 9068)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import jwt

from shopassist.errors import InvalidInputError, InvalidTokenError
from shopassist.identity.caller import Caller
from shopassist.identity.keys import Keys
from shopassist.models.text import valid_user_id

ALGORITHMS = ["RS256", "ES256"]
SCOPE_CLAIMS = ("scope", "scp", "permissions")
"""Where issuers say what a token allows: RFC 8693, Microsoft and Okta, Auth0."""

LEEWAY = timedelta(seconds=10)
LONGEST_LIFETIME = timedelta(days=30)
LONGEST_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer that is believed: its name with the trailing slash, the audience it must name, and its keys."""

    name: str
    audience: str
    keys: Keys


class TokenVerifier:
    """Turns a token into the user it proves."""

    def __init__(self, issuers: Sequence[Issuer]) -> None:
        """Without issuers no token is believed."""
        self._issuers = {issuer.name: issuer for issuer in issuers}

    async def verify(self, token: str) -> Caller:
        """The registered user. Raises `InvalidTokenError`."""
        if len(token) > LONGEST_TOKEN:
            raise InvalidTokenError
        try:
            claims = await self._claims(token)
            return caller_of(claims)
        except (jwt.PyJWTError, InvalidInputError, ValueError, TypeError, KeyError, OverflowError):
            raise InvalidTokenError from None

    async def _claims(self, token: str) -> dict[str, Any]:
        unverified = jwt.decode_complete(token, options={"verify_signature": False})
        header = unverified["header"]
        issuer = self._issuers.get(unverified["payload"].get("iss", ""))
        if issuer is None or "crit" in header or header["alg"] not in ALGORITHMS:
            raise InvalidTokenError
        key = await issuer.keys.get(str(header["kid"]))
        if key is None or key.algorithm_name != header["alg"]:
            raise InvalidTokenError
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=ALGORITHMS,
            audience=issuer.audience,
            issuer=issuer.name,
            leeway=LEEWAY,
            options={"require": ["exp", "iat", "iss", "aud", "sub"]},
        )
        if not 0 <= claims["exp"] - claims["iat"] <= LONGEST_LIFETIME.total_seconds():
            raise InvalidTokenError
        return claims


def names_in(claim: object) -> list[str]:
    """The names in a claim that is a string of words or a list of strings."""
    if isinstance(claim, str):
        return claim.split()
    return [name for name in claim if isinstance(name, str)] if isinstance(claim, list) else []


def caller_of(claims: dict[str, Any]) -> Caller:
    """The user of verified claims."""
    scopes = {name for claim in SCOPE_CLAIMS for name in names_in(claims.get(claim))}
    profile = {name: value for name in ("email", "name", "picture") if isinstance(value := claims.get(name), str)}
    return Caller(user_id=valid_user_id(claims["sub"]), is_guest=False, scopes=frozenset(scopes), **profile)
