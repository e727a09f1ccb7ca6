"""The server's secret, and the keys derived from it for each purpose."""

import hashlib
import hmac
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from secrets import token_bytes

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shopassist.errors import StartupError
from shopassist.settings import Settings, Storage

KEY_BYTES = 32
PROCESS_SECRET = token_bytes()
GENERATED_KEY_FILE = "secret.key"
USER_HASH_PURPOSE = "erased subjects"
MISSING_KEY_DETAIL = (
    "SECRET_KEY is not set. In production all servers of one database must share it, and it must outlive them: set it "
    "to at least 32 random characters, for example of `openssl rand -hex 32`."
)


def derive_key(settings: Settings, purpose: str) -> bytes:
    """Return 32 bytes for `purpose`, derived from SECRET_KEY (HKDF with SHA-256, RFC 5869).

    Without SECRET_KEY a secret is generated and kept in the data folder, or in memory with STORAGE=memory. Raises
    `StartupError` in production.
    """
    require_secret(settings)
    if settings.identity.secret_key is not None:
        secret = settings.identity.secret_key.get_secret_value().encode()
    elif settings.storage.storage is Storage.MEMORY:
        secret = PROCESS_SECRET
    else:
        secret = read_or_create_file(settings.database.data_folder / GENERATED_KEY_FILE, token_bytes)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"shopassist {purpose}".encode()).derive(secret)


def require_secret(settings: Settings) -> None:
    """Raise `StartupError` when SECRET_KEY is missing in production."""
    if settings.server.production and settings.identity.secret_key is None:
        raise StartupError(MISSING_KEY_DETAIL)


def read_or_create_file(file: Path, create: Callable[[], bytes]) -> bytes:
    """Return the content of `file`, which is first created with the result of `create` when it is missing."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        pass
    content = create()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(content)
    try:
        # Unlike a rename, a link fails when another process was faster.
        os.link(temporary, file)
    except FileExistsError:
        return file.read_bytes()
    finally:
        temporary.unlink()
    return content


class UserHasher:
    """Hashes user ids (HMAC with SHA-256)."""

    def __init__(self, settings: Settings) -> None:
        """Derive the key at the first use, which raises `StartupError` when there is no secret."""
        self._settings = settings

    @cached_property
    def _key(self) -> bytes:
        return derive_key(self._settings, USER_HASH_PURPOSE)

    def __call__(self, user_id: str) -> str:
        """Return 64 hex characters."""
        return hmac.digest(self._key, user_id.encode(), hashlib.sha256).hex()

    @property
    def fingerprint(self) -> str:
        """16 hex characters that identify the key: hashes made with another key cannot be matched to users."""
        return self("\x00fingerprint")[:16]
