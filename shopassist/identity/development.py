"""A token issuer for local use, where no identity provider is set up.

Its key is made on first start and never leaves the data folder. A server believes it only while it is not in
production, keeps its data in the embedded database and listens on the loopback interface.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shopassist.identity.key_file import read_or_make
from shopassist.identity.tokens import Issuer

ISSUER = "https://development.shopassist.invalid/"
AUDIENCE = "shopassist-development"
KEY_ID = "development"
LIFETIME = timedelta(hours=24)


class DevelopmentIssuer:
    """Mints tokens, and is the `Keys` that verify them."""

    def __init__(self, key_file: Path) -> None:
        """The key is made when it is first needed; the file is readable by its owner alone."""
        self._key_file = key_file

    def issuer(self) -> Issuer:
        """The issuer as the verifier takes it."""
        return Issuer((ISSUER,), AUDIENCE, self)

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The public key."""
        if key_id != KEY_ID:
            return None
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._private_key().public_key(), as_dict=True)
        return jwt.PyJWK.from_dict({**public, "alg": "RS256", "kid": KEY_ID})

    def mint(self, subject: str, scopes: list[str], lifetime: timedelta = LIFETIME) -> str:
        """A token for `subject`."""
        now = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + lifetime,
            "scope": " ".join(scopes),
        }
        return jwt.encode(claims, self._private_key(), algorithm="RS256", headers={"kid": KEY_ID})

    def _private_key(self) -> rsa.RSAPrivateKey:
        pem = read_or_make(self._key_file, new_key)
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the development key must be an RSA key")
        return key


def new_key() -> bytes:
    """A private key, as PEM."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
