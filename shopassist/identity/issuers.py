"""Trusted token issuers by the settings, and the development issuer for local use."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from shopassist.identity.jwks import IssuerKeys, build_jwks_fetcher
from shopassist.identity.key_derivation import read_or_create_file
from shopassist.identity.tokens import Issuer, TokenVerifier
from shopassist.settings import Settings

DEVELOPMENT_ISSUER = "https://development.shopassist.invalid/"
DEVELOPMENT_AUDIENCE = "shopassist-development"
DEVELOPMENT_KEY_ID = "development"
DEVELOPMENT_TOKEN_LIFETIME = timedelta(hours=24)


class DevelopmentIssuer:
    """Mints tokens, and is the `KeySource` that verify them."""

    def __init__(self, key_file: Path) -> None:
        """The key is made when it is first needed; the file is readable by its owner alone."""
        self._key_file = key_file

    def issuer(self) -> Issuer:
        """The issuer as the verifier takes it."""
        return Issuer((DEVELOPMENT_ISSUER,), DEVELOPMENT_AUDIENCE, self)

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The public key."""
        if key_id != DEVELOPMENT_KEY_ID:
            return None
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._private_key().public_key(), as_dict=True)
        return jwt.PyJWK.from_dict({**public, "alg": "RS256", "kid": DEVELOPMENT_KEY_ID})

    def mint(self, subject: str, scopes: list[str], lifetime: timedelta = DEVELOPMENT_TOKEN_LIFETIME) -> str:
        """A token for `subject`."""
        now = datetime.now(UTC)
        claims = {
            "iss": DEVELOPMENT_ISSUER,
            "aud": DEVELOPMENT_AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + lifetime,
            "scope": " ".join(scopes),
        }
        return jwt.encode(claims, self._private_key(), algorithm="RS256", headers={"kid": DEVELOPMENT_KEY_ID})

    def _private_key(self) -> rsa.RSAPrivateKey:
        pem = read_or_create_file(self._key_file, generate_private_key)
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the development key must be an RSA key")
        return key


def generate_private_key() -> bytes:
    """A private key, as PEM."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


DEVELOPMENT_KEY_FILE_NAME = "development-issuer.pem"


def token_verifier(settings: Settings) -> TokenVerifier:
    """The verifier of the configured identity provider and, for local use only, of the development issuer."""
    issuers = []
    identity = settings.identity
    if identity.issuer and identity.audience:
        issuers.append(
            Issuer(identity.issuer_names, identity.audience, IssuerKeys(build_jwks_fetcher(identity.issuer)))
        )
    if is_development_issuer_trusted(settings):
        issuers.append(DevelopmentIssuer(get_development_key_file(settings)).issuer())
    return TokenVerifier(issuers)


def is_development_issuer_trusted(settings: Settings) -> bool:
    """Only outside production, on the embedded database, and where nobody but this machine can ask."""
    return not settings.server.production and settings.embedded_database and is_loopback_host(settings.server.host)


def get_development_key_file(settings: Settings) -> Path:
    """Where the development issuer's key is kept."""
    return settings.database.data_folder / DEVELOPMENT_KEY_FILE_NAME


def is_loopback_host(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
