"""Which issuers are believed, by the settings."""

from ipaddress import ip_address
from pathlib import Path

from shopassist.identity.development import DevelopmentIssuer
from shopassist.identity.discovery import jwks_of
from shopassist.identity.keys import IssuerKeys
from shopassist.identity.tokens import Issuer, TokenVerifier
from shopassist.settings import Settings

DEVELOPMENT_KEY = "development-issuer.pem"


def token_verifier(settings: Settings) -> TokenVerifier:
    """The verifier of the configured identity provider and, for local use only, of the development issuer."""
    issuers = []
    identity = settings.identity
    if identity.issuer and identity.audience:
        issuers.append(Issuer(identity.issuer_names, identity.audience, IssuerKeys(jwks_of(identity.issuer))))
    if believes_development_issuer(settings):
        issuers.append(DevelopmentIssuer(development_key(settings)).issuer())
    return TokenVerifier(issuers)


def believes_development_issuer(settings: Settings) -> bool:
    """Only outside production, on the embedded database, and where nobody but this machine can ask."""
    return not settings.server.production and settings.embedded_database and is_loopback(settings.server.host)


def development_key(settings: Settings) -> Path:
    """Where the development issuer's key is kept."""
    return settings.database.data_folder / DEVELOPMENT_KEY


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
