"""Helpers for all tests."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from shopassist.settings import Settings, Storage, StorageSettings
from shopassist.settings.database import DatabaseConfig
from shopassist.settings.group import SettingsGroup


class FixedClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Set it to noon of 2026-01-01."""
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def instant(self) -> datetime:
        """Return its time."""
        return self.time

    def move(self, **span: float) -> None:
        """Move it forward by a `timedelta` with these arguments."""
        self.time += timedelta(**span)


def replace_database_name(url: str, name: str) -> str:
    """Return the connection string of another database on the same server."""
    return url.rpartition("/")[0] + f"/{name}"


def get_port(url: str) -> int:
    """Return the port in a connection string."""
    return int(urlsplit(url).port or 0)


def replace_port(url: str, port: int) -> str:
    """Return the connection string with another port on this machine."""
    return url.replace(f":{get_port(url)}/", f":{port}/")


async def execute(url: str, statement: str) -> None:
    """Run one statement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def relax_time_limits(settings: Settings) -> Settings:
    """Return settings with time limits that a busy machine does not reach."""
    database = settings.database.model_copy(update={"hot_timeout": 60.0, "lock_timeout": 40.0, "retry_timeout": 60.0})
    return settings.model_copy(update={"database": database})


def postgres_settings(url: str) -> Settings:
    """Return settings for the database at `url`."""
    return Settings(
        database=DatabaseConfig(database_url=SecretStr(url)), storage=StorageSettings(storage=Storage.POSTGRES)
    )


def get_setting_names() -> set[str]:
    """Return the environment variables of all settings."""
    return {str(field.alias) for group in SettingsGroup.__subclasses__() for field in group.model_fields.values()}
