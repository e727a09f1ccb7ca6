"""Secrets out of files, and that no error shows one."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from shopassist.errors import StartupError
from shopassist.settings import Settings, read_settings
from shopassist.settings.database import ProvisioningSettings
from shopassist.settings.group import SettingsGroup, is_secret_field, load_settings

MARK = "planted-secret-0123456789-planted"
GROUPS: list[type[SettingsGroup]] = [
    ProvisioningSettings,
    *(
        field.annotation
        for field in Settings.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup)
    ),
]
SECRETS = {
    str(field.alias): group for group in GROUPS for field in group.model_fields.values() if is_secret_field(field)
}
SECRET_WORDS = ("URL", "PASSWORD", "KEY", "SECRET", "TOKEN", "DSN")
NO_SECRETS = {"FRONTEND_URL", "EMBEDDING_URL"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a file with a secret, as editors and orchestrators write it."""
    file = tmp_path / "secret"
    file.write_text(f"{MARK}\n")
    return file


def shown(group: SettingsGroup) -> set[str]:
    """All secrets of a group in the clear."""
    values = [getattr(group, name) for name in type(group).model_fields]
    return {value.get_secret_value() for value in values if isinstance(value, SecretStr)}


def test_the_secrets_are_known() -> None:
    """Whatever is named like a secret is one, in a type that does not show it."""
    named = {str(field.alias) for group in GROUPS for field in group.model_fields.values()}
    like = {name for name in named if name.endswith(SECRET_WORDS)} - NO_SECRETS
    assert like <= set(SECRETS)
    assert {"DATABASE_URL", "DATABASE_MIGRATION_URL", "DATABASE_ADMIN_URL", "SECRET_KEY"} <= set(SECRETS)


@pytest.mark.parametrize("name", SECRETS)
def test_every_secret_may_come_from_a_file(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the end of its line; an empty variable beside it is none."""
    monkeypatch.setenv(f"{name}_FILE", str(file))
    monkeypatch.setenv(name, "")
    assert MARK in shown(SECRETS[name]())


@pytest.mark.parametrize("name", SECRETS)
def test_two_sources_of_one_secret_are_refused(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names are said, neither value."""
    monkeypatch.setenv(f"{name}_FILE", str(file))
    monkeypatch.setenv(name, MARK)
    with pytest.raises(StartupError, match=f"{name} and {name}_FILE") as refusal:
        load_settings(SECRETS[name])
    assert MARK not in str(refusal.value)


def test_a_link_that_does_not_lead_to_redis_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server starts, and without showing it."""
    monkeypatch.setenv("REDIS_URL_FILE", str(file))
    with pytest.raises(StartupError, match="REDIS_URL must begin with redis://") as refusal:
        read_settings()
    assert MARK not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\x00b", b"x" * 100_000], ids=len)
def test_a_file_that_holds_no_secret_is_refused(content: bytes, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence that names the variable."""
    file.write_bytes(content)
    monkeypatch.setenv("SECRET_KEY_FILE", str(file))
    with pytest.raises(StartupError, match="SECRET_KEY_FILE"):
        read_settings()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a folder."""
    for path in (tmp_path / "none", tmp_path):
        monkeypatch.setenv("DATABASE_URL_FILE", str(path))
        with pytest.raises(StartupError, match="DATABASE_URL_FILE cannot be read"):
            read_settings()


def test_the_env_file_may_name_files(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`.env` is one more environment."""
    (tmp_path / ".env").write_text(f"SECRET_KEY_FILE={file}\n")
    monkeypatch.chdir(tmp_path)
    assert Settings().identity.secret_key == SecretStr(MARK)


def test_what_is_no_secret_is_not_read_from_files(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`LOG_LEVEL_FILE` means nothing."""
    monkeypatch.setenv("LOG_LEVEL_FILE", str(file))
    assert Settings().server.log_level == "info"


def test_no_representation_shows_a_secret(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of settings, nor of what is made of them, nor as JSON."""
    for name in SECRETS:
        monkeypatch.setenv(f"{name}_FILE", str(file))
    settings = Settings()
    for group in (settings, ProvisioningSettings()):
        assert MARK not in f"{group!r} {group!s} {group.model_dump()} {group.model_dump_json()}"


def test_no_complaint_shows_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too short is complained about by its name, also where pydantic's own error is seen."""
    too_short = "plant3d"
    monkeypatch.setenv("SECRET_KEY", too_short)
    with pytest.raises(StartupError, match="SECRET_KEY") as refusal:
        read_settings()
    assert too_short not in str(refusal.value)
    with pytest.raises(ValidationError) as error:
        Settings()
    assert too_short not in f"{error.value} {error.value!r}"
