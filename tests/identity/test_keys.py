"""The server's secret and what is derived from it."""

from pathlib import Path
from secrets import token_bytes

import pytest
from pydantic import SecretStr, ValidationError

from shopassist.errors import StartupError
from shopassist.identity.key_derivation import GENERATED_KEY_FILE, KEY_BYTES, derive_key, is_usable_key
from shopassist.identity.tokens import DEVELOPMENT_KEY_FILE_NAME, DevelopmentIssuer
from shopassist.settings import IdentitySettings, ServerSettings, Settings, Storage, StorageSettings
from shopassist.settings.database import DatabaseConfig


def settings(folder: Path, secret: str | None = None, environment: str = "development") -> Settings:
    """Return settings with a data folder of their own."""
    return Settings(
        database=DatabaseConfig(data_folder=folder),
        identity=IdentitySettings(secret_key=SecretStr(secret) if secret else None),
        server=ServerSettings(environment=environment),
    )


def test_each_purpose_has_a_key_of_its_own(tmp_path: Path) -> None:
    """Always the same of one secret, another for another purpose or secret."""
    one, other = settings(tmp_path, "a" * 32), settings(tmp_path, "b" * 32)
    assert derive_key(one, "x") == derive_key(one, "x")
    assert len({derive_key(one, "x"), derive_key(one, "y"), derive_key(other, "x")}) == 3


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """Outside production: the next start has the same."""
    first = derive_key(settings(tmp_path), "x")
    assert derive_key(settings(tmp_path), "x") == first
    assert (settings(tmp_path).database.data_folder / GENERATED_KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert derive_key(settings(tmp_path / "elsewhere"), "x") != first


def test_with_memory_it_is_kept_in_memory(tmp_path: Path) -> None:
    """What it is for does not outlive the process either; within it each look finds the same."""
    memory = settings(tmp_path).model_copy(update={"storage": StorageSettings(storage=Storage.MEMORY)})
    assert derive_key(memory, "x") == derive_key(memory, "x") != derive_key(settings(tmp_path), "x")
    (memory.database.data_folder / GENERATED_KEY_FILE).unlink()
    assert derive_key(memory, "x")
    assert list(tmp_path.iterdir()) == []


def test_production_must_be_told(tmp_path: Path) -> None:
    """A secret of one machine would forget guests and erasures; a short one could be guessed."""
    with pytest.raises(StartupError, match="SECRET_KEY"):
        derive_key(settings(tmp_path, environment="production"), "x")
    with pytest.raises(ValidationError, match="at least 32"):
        IdentitySettings(secret_key=SecretStr("short"))


DAMAGED = {
    "empty": b"",
    "short": b"k" * 31,
    "spaces": b" " * 64,
    "short text with spaces": b"k" * 20 + b" " * 20,
    "a line end": b"\n",
    "zeros": bytes(KEY_BYTES),
    "many zeros": bytes(4096),
    "text with zeros": b"k" * 40 + b"\0" * 8,
    "overwritten": b"k" * 20 + bytes(12),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    """As it is in SECRET_KEY: sessions could be forged. The file is named, and left as it is."""
    file = tmp_path / GENERATED_KEY_FILE
    file.write_bytes(content)
    with pytest.raises(StartupError, match=f"{file} holds no key"):
        derive_key(settings(tmp_path), "x")
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"k" * 32, b"of a password manager, at least 32\n", bytes(range(32))])
def test_a_secret_that_is_long_enough_is_used(tmp_path: Path, content: bytes) -> None:
    """As bytes of the server's own, or as the text of an operator."""
    (tmp_path / GENERATED_KEY_FILE).write_bytes(content)
    assert derive_key(settings(tmp_path), "x") == derive_key(settings(tmp_path), "x")


def test_no_random_secret_is_refused() -> None:
    """Blank bytes among random ones are no damage."""
    assert all(is_usable_key(token_bytes()) for _ in range(5000))


@pytest.mark.parametrize("name", [GENERATED_KEY_FILE, DEVELOPMENT_KEY_FILE_NAME])
def test_a_secret_that_cannot_be_read_or_made_is_refused(tmp_path: Path, name: str) -> None:
    """A folder in its place, a link to nowhere, a name that is too long."""

    def use(folder: Path) -> None:
        if name == GENERATED_KEY_FILE:
            derive_key(settings(folder), "x")
        else:
            DevelopmentIssuer(settings(folder)).mint("me", [])

    (tmp_path / "one" / name).mkdir(parents=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / name).symlink_to(tmp_path / "nowhere" / "key")
    for folder in (tmp_path / "one", tmp_path / "two", tmp_path / ("long" * 100)):
        with pytest.raises(StartupError, match=f"{name} cannot be read or made"):
            use(folder)


@pytest.mark.parametrize("content", [b"", b"\n", b"-----BEGIN PRIVATE KEY-----\n", bytes(2048)], ids=len)
def test_a_damaged_key_of_local_tokens_is_refused(tmp_path: Path, content: bytes) -> None:
    """The file is named."""
    (tmp_path / DEVELOPMENT_KEY_FILE_NAME).write_bytes(content)
    with pytest.raises(StartupError, match=f"{DEVELOPMENT_KEY_FILE_NAME} holds no private RSA key"):
        DevelopmentIssuer(settings(tmp_path)).check_key()
