"""Fixtures: a real PostgreSQL, a migrated database for each test that needs one, and containers over both storages."""

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
from tests.support.helpers import FixedClock, execute, replace_database_name
from tests.support.skip_report import LeftOut

pytest_plugins = ["tests.support.http_fixtures"]

TEMPLATE = "migrated"


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the machine's settings from tests, and keep their keys in a temporary folder."""
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
    """Start a PostgreSQL server for the whole run; it need not survive a power cut."""
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
    """Create a database at the newest revision, to be copied."""

    async def make() -> None:
        await execute(server_url, f"CREATE DATABASE {TEMPLATE}")
        await migrate.upgrade(normalise_dsn(replace_database_name(server_url, TEMPLATE)))

    asyncio.run(make())
    return replace_database_name(server_url, TEMPLATE)


@pytest.fixture(scope="session")
def database_pool(server_url: str, template_url: str) -> DatabasePool:
    """Return the pool of migrated databases."""
    return DatabasePool(server_url, template_url.rpartition("/")[2])


@pytest.fixture
async def empty_database_url(server_url: str) -> AsyncIterator[str]:
    """Create a database without tables."""
    name = f"test_{uuid4().hex}"
    await execute(server_url, f"CREATE DATABASE {name} {COPYING}")
    yield replace_database_name(server_url, name)
    await execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(database_pool: DatabasePool) -> AsyncIterator[str]:
    """Return a migrated database without rows."""
    url = await database_pool.take()
    yield url
    await database_pool.give_back(url)


@pytest.fixture
def clock() -> FixedClock:
    """Return the clock of `container`."""
    return FixedClock()


@pytest.fixture
async def container(settings: Settings, clock: FixedClock) -> AsyncIterator[Container]:
    """Build a container with a clock that stands still."""
    container = Container(settings=settings)
    container.clock.override(clock)
    yield container
    await container.shutdown()


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Return a function that prints measured values even while output is captured."""

    def show(what: str, **figures: float) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{what}: {', '.join(f'{name} {value:g}' for name, value in figures.items())}\n")

    return show


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--no-skips`, for runs with everything installed that tests need."""
    parser.addoption("--no-skips", action="store_true", help="let a skipped test fail the run")


def pytest_configure(config: pytest.Config) -> None:
    """Register the report of deselected tests."""
    config.pluginmanager.register(LeftOut(config))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run with `--no-skips` if a test was skipped."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped") and not exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
