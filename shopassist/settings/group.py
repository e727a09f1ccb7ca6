"""What every group of settings is."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Group(BaseSettings):
    """Settings that belong together. A field's name is what code uses, its alias the environment variable."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )
