"""The server's secret, and the keys made of it: one for each purpose, so that none can stand in for another."""

from functools import cache
from pathlib import Path
from secrets import token_bytes

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shopassist.errors import StartupError
from shopassist.identity.key_file import read_or_make
from shopassist.settings import Settings, Storage

KEY_BYTES = 32
KEPT_IN = "secret.key"
MISSING = (
    "SECRET_KEY is not set. In production all servers of one database must share it, and it must outlive them: set it "
    "to at least 32 random characters, for example of `openssl rand -hex 32`."
)


def derived_key(settings: Settings, purpose: str) -> bytes:
    """32 bytes for `purpose`, of SECRET_KEY (HKDF with SHA-256, RFC 5869).

    Outside production a secret is made when none is set: in the data folder, or, with STORAGE=memory, where nothing
    outlives the process, in memory. Raises `StartupError` in production.
    """
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"shopassist {purpose}".encode()).derive(_secret(settings))


def shared_cache_key(settings: Settings) -> bytes:
    """What signs entries of the shared cache; nothing, and no secret needed, where there is none."""
    return b"" if settings.shared_cache_url is None else derived_key(settings, "shared cache")


def _secret(settings: Settings) -> bytes:
    given = settings.identity.secret_key
    if given is not None:
        return given.get_secret_value().encode()
    require_secret(settings)
    if settings.storage.storage is Storage.MEMORY:
        return _of_this_process()
    return read_or_make(secret_file(settings), _random)


def require_secret(settings: Settings) -> None:
    """Raise `StartupError` when there is no secret in production."""
    if settings.server.production and settings.identity.secret_key is None:
        raise StartupError(MISSING)


@cache
def _of_this_process() -> bytes:
    return _random()


def secret_file(settings: Settings) -> Path:
    """Where the secret is kept that was made for want of a set one."""
    return settings.database.data_folder / KEPT_IN


def _random() -> bytes:
    return token_bytes(KEY_BYTES)
