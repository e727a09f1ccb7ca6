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
from shopassist.settings.values import MIN_KEY_LENGTH

KEY_BYTES = 32
BLANK_BYTES = b" \t\r\n\v\f\0"
MIN_FILLED_BYTES = 24
"""Random bytes have one blank byte in 37: a key with more than a quarter of them was overwritten."""

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
    info = f"shopassist {purpose}".encode()
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(read_secret(settings))


def read_secret(settings: Settings) -> bytes:
    """Return SECRET_KEY or the generated secret. Raises `StartupError` if there is none that can be used."""
    require_secret(settings)
    if settings.identity.secret_key is not None:
        return settings.identity.secret_key.get_secret_value().encode()
    if settings.storage.storage is Storage.MEMORY:
        return PROCESS_SECRET
    file = settings.database.data_folder / GENERATED_KEY_FILE
    secret = read_or_create_file(file, token_bytes)
    if not is_usable_key(secret):
        raise StartupError(
            f"{file} holds no key of at least {MIN_KEY_LENGTH} characters: restore it, or remove it to get a new one, "
            "which ends guest sessions and forgets which users were erased."
        )
    return secret


def is_usable_key(content: bytes) -> bool:
    """Return whether a key file holds random bytes, as this server writes them, or a text that SECRET_KEY may be."""
    if len(content) == KEY_BYTES:
        return len(content.translate(None, BLANK_BYTES)) >= MIN_FILLED_BYTES
    return len(content.strip()) >= MIN_KEY_LENGTH and b"\0" not in content


def require_secret(settings: Settings) -> None:
    """Raise `StartupError` when SECRET_KEY is missing in production."""
    if settings.server.production and settings.identity.secret_key is None:
        raise StartupError(MISSING_KEY_DETAIL)


def read_or_create_file(file: Path, create: Callable[[], bytes]) -> bytes:
    """Return the content of `file`, which is first created with the result of `create` when it is missing.

    Raises `StartupError`.
    """
    try:
        return file.read_bytes() if os.path.lexists(file) else _create_file(file, create())
    except OSError as error:
        raise StartupError(
            f"{file} cannot be read or made: {error.strerror}; make it readable to its owner, or set SHOPASSIST_DATA "
            "to another folder."
        ) from None


def _create_file(file: Path, content: bytes) -> bytes:
    """Return the content of the file: `content`, unless another process was faster. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())  # else a power cut could leave an empty file
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
