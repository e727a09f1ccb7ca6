"""The product on the PostgreSQL of the system, which is older than the embedded one."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers import Container
from shopassist.db.embedded import server
from shopassist.db.embedded.programs import Binaries
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.ops.startup import prepare
from shopassist.query.models import QueryRequest
from tests.support.helpers import postgres_settings

pytestmark = pytest.mark.external

SYSTEM = Path("/usr/lib/postgresql")


@pytest.fixture
def system_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a server with the programs of Debian's package."""
    folders = sorted(SYSTEM.glob("*/bin"), key=lambda path: int(path.parent.name))
    assert folders, "install the package postgresql: make tools"
    monkeypatch.setattr(server, "find_binaries", lambda: Binaries(folders[-1], int(folders[-1].parent.name)))
    folder = Path(tempfile.mkdtemp(prefix="shopassist-system-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "data")
    try:
        yield postgres.start()
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_question_is_answered_and_paid_for(system_url: str) -> None:
    """Migrations, catalogue, search, ledger and cache work there too."""
    container = Container(settings=postgres_settings(system_url))
    await prepare(container.settings(), container.unit_of_work())
    queries = container.query_service()
    request = QueryRequest(query="best 5G phone under ₹12,000 with 8GB RAM")
    first = (await queries.answer("g2wsht", is_guest=True, request=request)).response
    again = (await queries.answer("g2wsht", is_guest=True, request=request)).response
    assert (len(first.products), first.metadata.charged, first.metadata.available_credits) == (3, 1, 9)
    assert (again.cached, again.metadata.charged, again.products) == (True, 0, first.products)
    await container.shutdown()
