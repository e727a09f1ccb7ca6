"""The drill of docs/rollback.md: deploy a newer version, write with it, roll back; nothing is lost."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from containers import Container
from shopassist.db.migrate import list_known_revisions
from tests.support.helpers import postgres_settings
from tests.support.servers import PROJECT, TestServer

pytestmark = pytest.mark.slow

NEXT = '''"""Add a column that the older version does not know."""

import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_consents", sa.Column("channel", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("user_consents", "channel")
'''


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder for servers and the next version."""
    made = Path(tempfile.mkdtemp(prefix="shopassist-rollback-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def next_version(folder: Path) -> Path:
    """Return a copy of the product with one more migration."""
    for name in ("shopassist", "migrations"):
        shutil.copytree(PROJECT / name, folder / "next" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "containers.py", folder / "next")
    script = folder / "next/migrations/versions/9000_channel.py"
    script.write_text(NEXT.format(newest=list_known_revisions()[-1]))
    return folder / "next"


async def state(url: str) -> list[tuple[object, ...]]:
    """Fetch balances and ledger."""
    connection = await asyncpg.connect(url)
    try:
        accounts = await connection.fetch(
            "SELECT user_id, available_credits, held_credits FROM user_credits ORDER BY 1"
        )
        ledger = await connection.fetch("SELECT id, user_id, amount, balance_after FROM credit_transactions ORDER BY 1")
    finally:
        await connection.close()
    return [tuple(row) for row in (*accounts, *ledger)]


async def test_a_newer_version_is_taken_back(folder: Path, next_version: Path, database_url: str) -> None:
    """Version N refuses the schema of N+1; after the downgrade it has all data."""
    path = f"{next_version}:{PROJECT}"
    newer = TestServer(folder, database_url, PYTHONPATH=path).wait_until_ready()
    assert [newer.ask(f"phone {number}", "g-1")[1]["metadata"]["charged"] for number in range(3)] == [1, 1, 1]
    assert newer.stop() == 0
    written = await state(database_url)

    too_old = TestServer(folder, database_url)
    assert too_old.process.wait(60) == 1
    assert "9000, which this version does not know" in too_old.log.read_text()

    command = [sys.executable, "-m", "shopassist", "db", "downgrade", list_known_revisions()[-1], "--yes"]
    variables = {"PYTHONPATH": path, "DATABASE_URL": database_url, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    taken_back = subprocess.run(  # noqa: ASYNC221 - nothing else is to happen meanwhile
        command, env=variables, cwd=folder, capture_output=True, text=True, check=False
    )
    assert (taken_back.returncode, taken_back.stdout.strip()) == (0, list_known_revisions()[-1]), taken_back.stderr

    older = TestServer(folder, database_url).wait_until_ready()
    assert await state(database_url) == written
    assert older.ask("phone 0", "g-1")[1]["cached"]
    assert older.ask("phone 4", "g-1")[1]["metadata"]["available_credits"] == 6
    assert older.stop() == 0
    container = Container(settings=postgres_settings(database_url))
    report = await container.ledger_reconciliation().verify()
    await container.shutdown()
    assert report
    assert report.drifting_accounts == 0
