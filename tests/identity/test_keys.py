"""The server's secret and what is derived from it."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from shopassist.errors import StartupError
from shopassist.identity.key_derivation import GENERATED_KEY_FILE, derive_key
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
