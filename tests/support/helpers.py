"""What tests share."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
from pydantic import SecretStr

from shopassist.settings import Settings, Storage, StorageSettings
from shopassist.settings.database import DatabaseConfig


class FixedClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        """It shows an hour of a day long past."""
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def instant(self) -> datetime:
        """The instant it shows."""
        return self.time

    def move(self, **span: float) -> None:
        """Move on by a `timedelta` of these arguments."""
        self.time += timedelta(**span)


def with_name(url: str, name: str) -> str:
    """The link to another database of the same server."""
    return url.rpartition("/")[0] + f"/{name}"


def port_of(url: str) -> int:
    """The port that a link names."""
    return int(urlsplit(url).port or 0)


def through(url: str, port: int) -> str:
    """The same link by another port of this machine."""
    return url.replace(f":{port_of(url)}/", f":{port}/")


async def execute(url: str, statement: str) -> None:
    """Run one statement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def patient(settings: Settings) -> Settings:
    """These settings for a busy machine: statements may wait as long as a test does, which is not what it is about."""
    database = settings.database.model_copy(update={"hot_timeout": 60.0, "lock_timeout": 40.0, "retry_timeout": 60.0})
    return settings.model_copy(update={"database": database})


def postgres_settings(url: str) -> Settings:
    """Settings on the database at `url`."""
    return Settings(
        database=DatabaseConfig(database_url=SecretStr(url)), storage=StorageSettings(storage=Storage.POSTGRES)
    )
