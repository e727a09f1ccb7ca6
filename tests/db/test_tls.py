"""TLS to PostgreSQL, on a server of the system with certificates made by the test."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from containers import Container
from shopassist.db import migrate
from shopassist.db.database import DatabaseManager
from shopassist.db.dsn import apply_tls_settings, normalise_dsn
from shopassist.errors import ShopAssistError, StartupError, StorageUnavailableError
from shopassist.ops.db_cli import provision_roles
from shopassist.ops.startup import prepare
from shopassist.settings import Settings
from shopassist.settings.database import DatabaseConfig, ProvisioningSettings, SslMode
from tests.support.helpers import execute, replace_database_name
from tests.support.secure_server import SecureServer, run_secure_server

pytestmark = pytest.mark.external

PROJECT = Path(__file__).resolve().parents[2]
IN_USE = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@pytest.fixture(scope="module")
def running_server() -> Iterator[SecureServer]:
    """Start a server of Debian's package."""
    with run_secure_server() as server:
        yield server


@pytest.fixture
async def server(running_server: SecureServer) -> SecureServer:
    """Return the server with a valid certificate."""
    await running_server.present(running_server.authority, "127.0.0.1")
    return running_server


def config(server: SecureServer, mode: SslMode | None, root: str | None = "root.crt") -> DatabaseConfig:
    """Return settings with `mode`."""
    return DatabaseConfig(
        database_url=SecretStr(server.url), ssl_mode=mode, ssl_root_cert=None if root is None else server.root(root)
    )


async def is_protected(config: DatabaseConfig) -> bool:
    """Return whether the app's sessions are protected, including those for hot statements; they must agree."""
    manager = DatabaseManager(config)
    try:
        async with manager.session() as session:
            found = bool((await session.connection()) and (await session.scalar(text(IN_USE))))
        async with manager.direct_pool.acquire() as pooled:
            assert bool(await pooled.driver.fetchval(IN_USE)) is found
        return found
    finally:
        await manager.close()


@pytest.mark.parametrize(
    ("mode", "root", "protected"),
    [
        (None, None, True),  # libpq's default: where the server can
        (SslMode.DISABLE, None, False),
        (SslMode.ALLOW, None, False),
        (SslMode.PREFER, None, True),
        (SslMode.REQUIRE, None, True),
        (SslMode.REQUIRE, "root.crt", True),
        (SslMode.VERIFY_CA, "root.crt", True),
        (SslMode.VERIFY_FULL, "root.crt", True),
    ],
)
async def test_each_mode_is_libpqs(
    server: SecureServer, mode: SslMode | None, root: str | None, protected: bool
) -> None:
    """With a certificate that holds."""
    assert await is_protected(config(server, mode, root)) is protected


async def test_a_link_may_say_it_all(server: SecureServer) -> None:
    """`sslmode` and `sslrootcert`, as psql takes them."""
    link = f"{server.url}?sslmode=verify-full&sslrootcert={server.root()}"
    assert await is_protected(DatabaseConfig(database_url=SecretStr(link)))


async def test_the_name_counts_for_verify_full_alone(server: SecureServer) -> None:
    """`verify-ca` and `require` accept a certificate of the authority for any host."""
    await server.present(server.authority, "db.example")
    for mode in (SslMode.REQUIRE, SslMode.VERIFY_CA):
        assert await is_protected(config(server, mode))
    with pytest.raises(StartupError, match="does not hold"):
        await migrate.get_current_revision(
            apply_tls_settings(normalise_dsn(server.url), config(server, SslMode.VERIFY_FULL))
        )


Way = Callable[[DatabaseConfig], Awaitable[object]]


async def start(config: DatabaseConfig) -> None:
    """Do what a server does before its first request."""
    container = Container(settings=Settings(database=config))
    try:
        await prepare(container.settings(), container.unit_of_work())
    finally:
        await container.shutdown()


async def use(config: DatabaseConfig) -> None:
    """Do what a server does later."""
    manager = DatabaseManager(config)
    try:
        await manager.ping()
    finally:
        await manager.close()


async def upgrade(config: DatabaseConfig) -> None:
    """Run `shopassist db upgrade`."""
    assert config.database_url
    await migrate.upgrade(apply_tls_settings(normalise_dsn(config.database_url.get_secret_value()), config))


async def make_roles(config: DatabaseConfig) -> None:
    """Run `shopassist db provision`."""
    await provision_roles(ProvisioningSettings(admin_url=config.database_url), config)


async def command(config: DatabaseConfig) -> None:
    """Run the command line in its own process."""
    assert config.database_url
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "DATABASE_URL": config.database_url.get_secret_value(),
        "DB_SSL_MODE": str(config.ssl_mode),
        "DB_SSL_ROOT_CERT": config.ssl_root_cert or "",
    }
    arguments = [sys.executable, "-m", "shopassist", "db", "current"]
    done = await asyncio.to_thread(
        subprocess.run, arguments, env=environment, capture_output=True, check=False, cwd=tempfile.gettempdir()
    )
    if done.returncode:
        [line] = done.stderr.decode().splitlines()
        raise StartupError(line)


WAYS: list[Way] = [start, use, upgrade, make_roles, command]


@pytest.mark.parametrize("way", WAYS)
async def test_every_connection_is_verified(server: SecureServer, way: Way) -> None:
    """Every kind of connection works with the right authority, and with no other."""
    name = f"ways_{way.__name__}"
    await execute(server.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await execute(server.url, f"CREATE DATABASE {name}")
    url = {"database_url": SecretStr(replace_database_name(server.url, name))}
    await way(config(server, SslMode.VERIFY_FULL).model_copy(update=url))
    with pytest.raises((StartupError, StorageUnavailableError)):
        await way(config(server, SslMode.VERIFY_FULL, "stranger.crt").model_copy(update=url))


async def refusal(config: DatabaseConfig, way: Way) -> str:
    """Return the message for a server with a wrong certificate, or none."""
    with pytest.raises(ShopAssistError) as refused:
        await way(config)
    assert config.database_url
    url = normalise_dsn(config.database_url.get_secret_value())
    assert url.password
    assert url.password not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


@pytest.mark.parametrize("way", [start, upgrade, make_roles, command])
async def test_each_refusal_says_why_in_one_sentence(server: SecureServer, server_url: str, way: Way) -> None:
    """It shows nothing of the connection string but host and database."""
    full = config(server, SslMode.VERIFY_FULL)
    stranger = config(server, SslMode.VERIFY_FULL, "stranger.crt")
    assert "does not hold: unable to get local issuer certificate" in await refusal(stranger, way)
    await server.present(server.authority, "db.example")
    said = await refusal(full, way)
    assert "does not hold: IP address mismatch, certificate is not valid for '127.0.0.1'" in said
    await server.present(server.authority, "127.0.0.1", -timedelta(hours=1))
    assert "does not hold: certificate has expired" in await refusal(full, way)
    plain = full.model_copy(update={"database_url": SecretStr(server_url)})
    assert "does not speak TLS" in await refusal(plain, way)
    required = plain.model_copy(update={"ssl_mode": SslMode.REQUIRE, "ssl_root_cert": None})
    assert "does not speak TLS" in await refusal(required, way)


async def test_a_server_that_runs_never_falls_back(server: SecureServer) -> None:
    """A certificate that expires later makes the database unavailable; TLS is never dropped."""
    manager = DatabaseManager(config(server, SslMode.VERIFY_FULL))
    await manager.ping()
    await server.present(server.authority, "127.0.0.1", -timedelta(hours=1))
    await manager.close()
    with pytest.raises(StorageUnavailableError):
        await manager.ping()
    await manager.close()
