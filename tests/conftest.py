"""Fixtures: a real PostgreSQL, a fresh migrated database for each test that asks, and containers over both twins."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from containers import Container
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.settings import Settings
from tests.support.database_pool import COPYING, DatabasePool
from tests.support.helpers import FixedClock, execute, with_name
from tests.support.skip_report import LeftOut

pytest_plugins = ["tests.support.http_fixtures"]

TEMPLATE = "migrated"
"""Where nothing is synced, copying files costs a third of writing every page to the log: 0.1 s less in the kernel."""


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see no setting but their own, and keep their keys in a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        for group in Settings.model_fields.values():
            for field in getattr(group.annotation, "model_fields", {}).values():
                patch.delenv(str(field.alias), raising=False)
                patch.delenv(f"{field.alias}_FILE", raising=False)
        patch.chdir(tempfile.gettempdir())
        patch.setenv("SHOPASSIST_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL server for the whole run; it need not survive a power cut."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-test-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "data", settings={"fsync": "off", "max_connections": "300"})
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template_url(server_url: str) -> str:
    """A database at the newest revision, to be copied."""

    async def make() -> None:
        await execute(server_url, f"CREATE DATABASE {TEMPLATE}")
        await migrate.upgrade(normalise_dsn(with_name(server_url, TEMPLATE)))

    asyncio.run(make())
    return with_name(server_url, TEMPLATE)


@pytest.fixture(scope="session")
def database_pool(server_url: str, template_url: str) -> DatabasePool:
    """Migrated databases."""
    return DatabasePool(server_url, template_url.rpartition("/")[2])


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """A database without any table."""
    name = f"test_{uuid4().hex}"
    await execute(server_url, f"CREATE DATABASE {name} {COPYING}")
    yield with_name(server_url, name)
    await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(database_pool: DatabasePool) -> AsyncIterator[str]:
    """A migrated database without rows."""
    url = await database_pool.take()
    yield url
    await database_pool.give_back(url)


@pytest.fixture
def clock() -> FixedClock:
    """The clock of `container`."""
    return FixedClock()


@pytest.fixture
async def container(settings: Settings, clock: FixedClock) -> AsyncIterator[Container]:
    """A container of its own, whose clock stands still."""
    container = Container(settings=settings)
    container.clock.override(clock)
    yield container
    await container.shutdown()


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Shows figures that were measured, whether or not output is captured."""

    def show(what: str, **figures: float) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{what}: {', '.join(f'{name} {value:g}' for name, value in figures.items())}\n")

    return show


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--no-skips`: for runs in which everything that a test needs has been installed."""
    parser.addoption("--no-skips", action="store_true", help="let a skipped test fail the run")


def pytest_configure(config: pytest.Config) -> None:
    """Say what is left out."""
    config.pluginmanager.register(LeftOut(config))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let skips fail the run where that was asked for."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped") and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
