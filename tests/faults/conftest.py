"""Fixtures: a PostgreSQL to inject faults into, a database in it, and servers of the product under load."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import execute, replace_database_name, replace_port
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.measurements import Figure, publish
from tests.support.servers import TestServer
from tests.support.trial import HOLDS, Trial, run_trial

FIGURES = pytest.StashKey[list[Figure]]()
SETTINGS = {"fsync": "on", "deadlock_timeout": "100ms", "max_connections": "60"}
TEMPLATE = "shop"
TOKEN_AGE = timedelta(minutes=15)
"""Age of tokens: more than the error of any clock."""

NewServer = Callable[..., TestServer]
Trials = Callable[..., AbstractAsyncContextManager[Trial]]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a durable server that these tests share; each test leaves it running."""
    with run_postgres(**SETTINGS) as server:
        asyncio.run(execute(server.url, f"CREATE DATABASE {TEMPLATE}"))
        asyncio.run(migrate.upgrade(normalise_dsn(replace_database_name(server.url, TEMPLATE))))
        yield server


@pytest.fixture(scope="session")
def identity() -> Iterator[IdentityProvider]:
    """Return the issuer of tokens that the servers accept."""
    provider = IdentityProvider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """Create a database for one test and return its connection string."""
    name = f"shop_{uuid4().hex}"
    await execute(postgres_server.url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield replace_database_name(postgres_server.url, name)
    await execute(postgres_server.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def new_server(database: str, identity: IdentityProvider, tmp_path: Path) -> Iterator[NewServer]:
    """Return a function that starts a server on `database`, optionally through a proxy."""
    servers: list[TestServer] = []

    def start(port: int | None = None, **environment: str) -> TestServer:
        link = database if port is None else replace_port(database, port)
        believed = {"AUTH0_ISSUER": identity.issuer, "AUTH0_API_AUDIENCE": AUDIENCE}
        servers.append(TestServer(tmp_path, link, **HOLDS, **believed, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def create_token(identity: IdentityProvider) -> Callable[[str], str]:
    """Return a function that creates a registered user's access token."""
    issued = datetime.now(UTC) - TOKEN_AGE

    def create(subject: str) -> str:
        return identity.token(subject, identity.curve_key, {"kid": "k2"}, "ES256", iat=issued)

    return create


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[Figure], None]:
    """Return a function that records a figure for the table."""
    return request.config.stash.setdefault(FIGURES, []).append


@pytest.fixture
def trial(
    database: str, new_server: NewServer, create_token: Callable[[str], str], record: Callable[[Figure], None]
) -> Trials:
    """Return a function that starts a named trial: a server under load on `database`, optionally through a proxy."""

    def begin(name: str, port: int | None = None, **environment: str) -> AbstractAsyncContextManager[Trial]:
        return run_trial(name, record, new_server(port, **environment), database, create_token)

    return begin


def pytest_terminal_summary(config: pytest.Config) -> None:
    """Print the measurements."""
    if figures := config.stash.get(FIGURES, []):
        publish(figures)
