"""`DatabaseManager`: links as they come, and what each setting of the pool does."""

import asyncio
import socket
import time
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import exc, text

from shopassist.db import migrate
from shopassist.db.database import DatabaseManager
from shopassist.db.dsn import format_hosts_and_database, normalise_dsn
from shopassist.errors import StartupError, StorageUnavailableError
from shopassist.settings.database import DatabaseConfig


def manager_of(url: str, **settings: Any) -> DatabaseManager:
    """Build a manager with these pool settings."""
    return DatabaseManager(DatabaseConfig(database_url=SecretStr(url), **settings))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgresql+psycopg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
        ("postgresql://u@h/d?application_name=x", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@h/d?target_session_attrs=primary", "postgresql+asyncpg://u@h/d?target_session_attrs=primary"),
    ],
)
def test_links_are_normalised(link: str, expected: str) -> None:
    """Every usual spelling of a link works."""
    assert normalise_dsn(link).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    ("link", "hosts", "wanted"),
    [
        ("postgresql://u:p,%40@h1:1,h2:2/d", "h1:1,h2:2", "read-write"),
        ("postgres://u:p,%40@h1,h2/d", "h1:5432,h2:5432", "read-write"),
        ("postgresql://u:p,%40@h1,h2:7/d?target_session_attrs=any", "h1:5432,h2:7", "any"),
        ("postgresql://u:p,%40@/d?host=h1,h2&port=1,2", "h1:1,h2:2", "read-write"),
        ("postgresql://u:p,%40@/d?host=h1,h2&port=7&target_session_attrs=primary", "h1:7,h2:7", "primary"),
        ("postgresql+asyncpg://u:p,%40@/d?host=h1:1&host=h2:2", "h1:1,h2:2", "read-write"),
        ("postgresql://u:p,%40@[::1]:1,[::2]/d", "[::1]:1,[::2]:5432", "read-write"),
        ("postgresql://u:p,%40@/d?host=/run/a,/run/b", "/run/a:5432,/run/b:5432", "read-write"),
    ],
)
def test_links_with_several_hosts(link: str, hosts: str, wanted: str) -> None:
    """In every spelling all hosts are kept, and the writable one is requested."""
    url = normalise_dsn(link)
    assert format_hosts_and_database(url) == f"{hosts}/d"
    assert url.query["target_session_attrs"] == wanted
    assert (url.username, url.password, url.database) == ("u", "p,@", "d")
    assert normalise_dsn(url.render_as_string(hide_password=False)) == url


@pytest.mark.parametrize(
    "link", ["postgresql://u:secret@h1:x,h2/d", "postgresql://u:secret@h/d?target_session_attrs=x"]
)
def test_links_that_cannot_be_meant_are_refused(link: str) -> None:
    """The message names the setting and contains nothing of the connection string."""
    with pytest.raises(StartupError) as caught:
        normalise_dsn(link, "DATABASE_REPLICA_URL")
    assert "DATABASE_REPLICA_URL" in caught.value.detail
    assert "secret" not in caught.value.detail


async def test_a_server_that_is_away_costs_no_time_where_there_is_another(database_url: str) -> None:
    """One host refuses and one accepts bytes without answering; the remaining host is used."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        head, _, rest = database_url.rpartition("@")
        there, _, name = rest.partition("/")
        manager = manager_of(f"{head}@127.0.0.1:1,127.0.0.1:{silent.getsockname()[1]},{there}/{name}")
        began = time.monotonic()
        await manager.ping()
        assert time.monotonic() - began < 3
        assert manager.servers.current == 2
        assert await migrate.get_current_revision(manager.url) == migrate.list_known_revisions()[-1]
        await manager.close()


async def test_behind_a_pooler_nothing_of_a_session_is_used(database_url: str) -> None:
    """`DB_POOL_MODE=transaction`: no statement is kept at the server, and no setting is the session's."""
    manager = manager_of(database_url, pool_mode="transaction")
    query = "SELECT (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_settings WHERE source IN "
    query += "('client', 'session') AND name NOT IN ('application_name', 'client_encoding'))"
    async with manager.session() as session, manager.direct_pool.acquire() as pooled:
        for _ in range(2):
            assert tuple(await pooled.driver.fetchrow(query)) == (0, 0)
            assert tuple((await session.execute(text(query))).one()) == (0, 0)
    async with manager.direct_pool.acquire() as pooled:
        assert pooled.server_process is None  # its number would be the pooler's invention, or an innocent's
    await manager.close()


@pytest.mark.parametrize("link", ["mysql://u:secret@h/d", "nonsense with secret", "sqlite:///secret"])
def test_other_links_are_refused_without_repeating_them(link: str) -> None:
    """The message contains nothing of the connection string."""
    with pytest.raises(StartupError) as caught:
        normalise_dsn(link)
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
    """Return the server process of the next connection."""
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
