"""Fixtures: a PostgreSQL that faults happen to, a database in it, and servers of the product under load."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from tests.support.databases import OwnPostgres, own_postgres
from tests.support.helpers import execute, through, with_name
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.measurements import Figure, publish
from tests.support.servers import TestServer
from tests.support.trial import HOLDS, Trial, under_load

FIGURES = pytest.StashKey[list[Figure]]()
SETTINGS = {"fsync": "on", "deadlock_timeout": "100ms", "max_connections": "60"}
TEMPLATE = "shop"
TOKEN_AGE = timedelta(minutes=15)
"""Tokens are older than any clock is wrong."""

Trials = Callable[..., AbstractAsyncContextManager[Trial]]


@pytest.fixture(scope="session")
def faulty() -> Iterator[OwnPostgres]:
    """A durable server of these tests' own, each of which leaves it running."""
    with own_postgres(**SETTINGS) as server:
        asyncio.run(execute(server.url, f"CREATE DATABASE {TEMPLATE}"))
        asyncio.run(migrate.upgrade(normalise_dsn(with_name(server.url, TEMPLATE))))
        yield server


@pytest.fixture(scope="session")
def identity() -> Iterator[IdentityProvider]:
    """Whose tokens the servers believe."""
    provider = IdentityProvider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture
async def database(faulty: OwnPostgres) -> AsyncIterator[str]:
    """The link to a database of a test's own."""
    name = f"shop_{uuid4().hex}"
    await execute(faulty.url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield with_name(faulty.url, name)
    await execute(faulty.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def trial(
    request: pytest.FixtureRequest, database: str, identity: IdentityProvider, tmp_path: Path
) -> Iterator[Trials]:
    """Begins a trial by its name: a server under load on `database`, through a proxy on `port` if there is one."""
    servers: list[TestServer] = []
    issued = datetime.now(UTC) - TOKEN_AGE

    def token(subject: str) -> str:
        return identity.token(subject, identity.curve_key, {"kid": "k2"}, "ES256", iat=issued)

    def begin(name: str, port: int | None = None, **environment: str) -> AbstractAsyncContextManager[Trial]:
        link = database if port is None else through(database, port)
        believed = {"AUTH0_ISSUER": identity.issuer, "AUTH0_API_AUDIENCE": AUDIENCE}
        server = TestServer(tmp_path, link, **HOLDS, **believed, **environment)
        servers.append(server)
        return under_load(name, request.config.stash.setdefault(FIGURES, []).append, server, database, token)

    yield begin
    for server in servers:
        server.kill()


def pytest_terminal_summary(config: pytest.Config) -> None:
    """Show what was measured."""
    if figures := config.stash.get(FIGURES, []):
        publish(figures)
