"""`DatabaseManager`: links as they come, and what each setting of the pool does."""

import asyncio
import time
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import exc, text

from shopassist.db.links import normalised
from shopassist.db.manager import DatabaseManager
from shopassist.errors import StartupError, StorageUnavailableError
from shopassist.settings import DatabaseConfig


def manager_of(url: str, **settings: Any) -> DatabaseManager:
    """A manager with these settings of the pool."""
    return DatabaseManager(DatabaseConfig(database_url=SecretStr(url), **settings))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql+psycopg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        ("postgresql://u@h/d?application_name=x", "postgresql+asyncpg://u@h/d"),
    ],
)
def test_links_are_normalised(link: str, expected: str) -> None:
    """Every usual spelling of a link works."""
    assert normalised(link).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize("link", ["mysql://u:secret@h/d", "nonsense with secret", "sqlite:///secret"])
def test_other_links_are_refused_without_repeating_them(link: str) -> None:
    """A clear sentence in which nothing of the link stands."""
    with pytest.raises(StartupError) as caught:
        normalised(link)
    assert "secret" not in caught.value.detail


async def test_pool_size_and_overflow_bound_the_connections(database_url: str) -> None:
    """`DB_POOL_SIZE` and `DB_MAX_OVERFLOW` together are the most connections; the overflow is closed afterwards."""
    manager = manager_of(database_url, pool_size=2, max_overflow=1, pool_timeout=0.2)
    connections = [await manager.engine.connect() for _ in range(3)]
    with pytest.raises(exc.TimeoutError):
        await manager.engine.connect()
    assert manager.pool_status() == {"size": 2, "checked_out": 3, "idle": 0, "overflow": 1}
    for connection in connections:
        await connection.close()
    assert manager.pool_status()["idle"] == 2
    await manager.close()


async def test_pool_timeout_bounds_the_wait(database_url: str) -> None:
    """`DB_POOL_TIMEOUT` seconds is how long a caller waits for a connection."""
    manager = manager_of(database_url, pool_size=1, max_overflow=0, pool_timeout=0.3)
    async with manager.engine.connect():
        began = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            await manager.engine.connect()
        assert time.monotonic() - began >= 0.3
    await manager.close()


async def backend(manager: DatabaseManager) -> int:
    """The server process behind the next connection."""
    async with manager.engine.connect() as connection:
        return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def test_pool_recycle_replaces_old_connections(database_url: str) -> None:
    """A connection older than `DB_POOL_RECYCLE` seconds is replaced when it is next taken; a younger one is kept."""
    manager = manager_of(database_url, pool_size=1, pool_recycle=1)
    first = await backend(manager)
    assert await backend(manager) == first
    await asyncio.sleep(1.1)
    assert await backend(manager) != first
    await manager.close()


async def test_echo_shows_statements_without_parameters(
    database_url: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """`DB_ECHO_SQL` logs what is executed, and never what it is executed with."""
    manager = manager_of(database_url, echo_sql=True)
    async with manager.engine.connect() as connection:
        await connection.execute(text("SELECT CAST(:secret AS text) AS shown"), {"secret": "hidden-value"})
    await manager.close()
    said = caplog.text + capsys.readouterr().out
    assert "AS shown" in said
    assert "hidden-value" not in said


async def test_connects_when_first_used() -> None:
    """A manager of a database that is away can be built; using it fails."""
    manager = manager_of("postgresql://u:p@127.0.0.1:1/d")
    with pytest.raises(StorageUnavailableError):
        await manager.ping()
    await manager.close()
