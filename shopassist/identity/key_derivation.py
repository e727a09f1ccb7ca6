"""The server's secret, and the keys derived from it for each purpose."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from secrets import token_bytes

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shopassist.errors import StartupError
from shopassist.settings import Settings, Storage


def read_or_create_file(file: Path, make: Callable[[], bytes]) -> bytes:
    """What is in `file`; what `make` gives is put there first when there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        pass
    content = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(content)
    try:
        os.link(temporary, file)
    except FileExistsError:
        return file.read_bytes()
    finally:
        temporary.unlink()
    return content


KEY_BYTES = 32
GENERATED_KEY_FILE = "secret.key"
MISSING_KEY_DETAIL = (
    "SECRET_KEY is not set. In production all servers of one database must share it, and it must outlive them: set it "
    "to at least 32 random characters, for example of `openssl rand -hex 32`."
)


def derive_key(settings: Settings, purpose: str) -> bytes:
    """32 bytes for `purpose`, of SECRET_KEY (HKDF with SHA-256, RFC 5869).

    Outside production a secret is made when none is set: in the data folder, or, with STORAGE=memory, where nothing
    outlives the process, in memory. Raises `StartupError` in production.
    """
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"shopassist {purpose}".encode()).derive(_get_secret(settings))


def derive_shared_cache_key(settings: Settings) -> bytes:
    """What signs entries of the shared cache; nothing, and no secret needed, where there is none."""
    return b"" if settings.shared_cache_url is None else derive_key(settings, "shared cache")


def _get_secret(settings: Settings) -> bytes:
    given = settings.identity.secret_key
    if given is not None:
        return given.get_secret_value().encode()
    require_secret(settings)
    if settings.storage.storage is Storage.MEMORY:
        return _get_process_secret()
    return read_or_create_file(get_secret_file(settings), _generate_secret)


def require_secret(settings: Settings) -> None:
    """Raise `StartupError` when there is no secret in production."""
    if settings.server.production and settings.identity.secret_key is None:
        raise StartupError(MISSING_KEY_DETAIL)


@cache
def _get_process_secret() -> bytes:
    return _generate_secret()


def get_secret_file(settings: Settings) -> Path:
    """Where the secret is kept that was made for want of a set one."""
    return settings.database.data_folder / GENERATED_KEY_FILE


def _generate_secret() -> bytes:
    return token_bytes(KEY_BYTES)
