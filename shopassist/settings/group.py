"""The base class of settings groups, and secrets from the files that `NAME_FILE` variables name."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from dotenv.parser import parse_stream
from pydantic import SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from shopassist.errors import StartupError
from shopassist.settings.values import expand_home

ENV_FILE = ".env"
MAX_SECRET_BYTES = 64 * 1024
NO_TEXT = f"The file {ENV_FILE} is not text in UTF-8: save it in that encoding"


class SettingsGroup(BaseSettings):
    """Settings that belong together; the alias of a field is its environment variable.

    A secret `NAME` may also come from the file that `NAME_FILE` names. Raises `SettingsError` when that file cannot be
    read, or when both are set.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",  # some editors begin a file with a mark, which would become part of a name
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's own way with files
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Prefer values given in code, then the environment, then `.env`, then the files that these name."""
        given: dict[str, str | None] = {}
        for source in (dotenv_settings, env_settings):
            if isinstance(source, EnvSettingsSource | DotEnvSettingsSource):
                given |= source.env_vars
        if any("\x00" in f"{name}{value}" for name, value in given.items()):
            raise SettingsError(NO_TEXT)
        secrets = InitSettingsSource(settings_cls, read_secret_files(settings_cls, given))
        return init_settings, env_settings, dotenv_settings, secrets

    @field_validator("*")
    @classmethod
    def _refuse_blank_secret(cls, value: Any) -> Any:
        if isinstance(value, SecretStr) and not value.get_secret_value().strip():
            raise ValueError("it holds only spaces")
        return value


def read_secret_files(group: type[BaseSettings], given: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the secrets from files; `given` is the environment, by lower-case names. Raises `SettingsError`."""
    secrets = {}
    for field in group.model_fields.values():
        name = str(field.alias)
        file = given.get(f"{name}_file".lower())
        if file and is_secret_field(field):
            if given.get(name.lower()):
                raise SettingsError(f"{name} and {name}_FILE are both set: which one holds cannot be said")
            secrets[name] = read_secret_file(name, expand_home(file))
    return secrets


def is_secret_field(field: FieldInfo) -> bool:
    """Return whether a field holds a secret."""
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def read_secret_file(name: str, file: Path) -> str:
    """Return the secret in a file, without the final line break. Raises `SettingsError`."""
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(MAX_SECRET_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise SettingsError(f"The file of {name}_FILE cannot be read: {reason}") from None
    secret = text.rstrip("\r\n")
    if not secret or len(text) > MAX_SECRET_BYTES or "\x00" in secret:
        raise SettingsError(f"The file of {name}_FILE is empty, or holds no secret")
    return secret


def check_env_file() -> None:
    """Raise `SettingsError` when `.env` is a folder or has a line that is no setting. Pydantic leaves these out."""
    file = Path(ENV_FILE)
    if file.is_dir():
        raise SettingsError(f"{ENV_FILE} is a folder: put the settings into a file of this name, or rename it")
    if not file.is_file():
        return
    content = file.read_text(encoding="utf-8-sig")
    if "\x00" in content:
        raise SettingsError(NO_TEXT)
    for part in parse_stream(io.StringIO(content)):
        if part.error:
            text = part.original.string
            line = part.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            raise SettingsError(
                f"Line {line} of the file {ENV_FILE} cannot be read: write NAME=value, and end a quoted value with the "
                "quote that it begins with"
            )


Read = TypeVar("Read")


def load_settings(read: Callable[[], Read]) -> Read:
    """Return `read()`. Raises `StartupError` that names the invalid variable, never with its value."""
    try:
        check_env_file()
        return read()
    except SettingsError as error:
        raise StartupError(f"{error}.") from None
    except ValidationError as error:
        problem = error.errors(include_input=False)[0]
        reason = problem.get("ctx", {}).get("error", problem["msg"])
        if not problem["loc"]:  # a rule for several settings; its text names them
            raise StartupError(f"{reason}.") from None
        raise StartupError(f"The setting {problem['loc'][0]} is not valid: {reason}.") from None
    except UnicodeDecodeError:
        raise StartupError(f"{NO_TEXT}.") from None
    except OSError as error:
        raise StartupError(f"The file {ENV_FILE} cannot be read: {error.strerror}.") from None
