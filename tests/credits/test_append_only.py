"""The ledger in PostgreSQL rejects changes of existing rows."""

import asyncio

import asyncpg
import pytest
from typer.testing import CliRunner

from containers import Container
from shopassist.cli import app
from tests.support.helpers import execute, postgres_settings

CHANGES = [
    "UPDATE credit_transactions SET amount = 60",
    "DELETE FROM credit_transactions",
    "TRUNCATE credit_transactions",
    "UPDATE credit_transactions SET amount = 60 WHERE user_id = 'unknown'",
]


@pytest.fixture
async def used(database_url: str) -> str:
    """Provide a database with one account that has spent a credit."""
    container = Container(settings=postgres_settings(database_url))
    await container.credit_service().deduct_credit("user")
    await container.shutdown()
    return database_url


@pytest.mark.parametrize("change", CHANGES)
async def test_no_row_is_changed_or_removed(used: str, change: str) -> None:
    """The trigger rejects the statement, for every role, and its error names it."""
    with pytest.raises(asyncpg.RestrictViolationError) as refused:
        await execute(used, change)
    assert refused.value.constraint_name == "credit_transactions_append_only"


@pytest.mark.parametrize("change", CHANGES)
async def test_permission_to_change_ends_with_the_transaction(used: str, change: str) -> None:
    """After compaction on a connection, the next transaction on it is rejected again."""
    connection = await asyncpg.connect(used)
    try:
        async with connection.transaction():
            await connection.execute("SELECT set_config('shopassist.ledger_maintenance', 'on', true)")
            await connection.execute("UPDATE credit_transactions SET description = description")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute(change)
    finally:
        await connection.close()


async def test_rows_are_added(used: str) -> None:
    """Inserting rows is allowed."""
    await execute(
        used,
        "INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after) "
        "VALUES ('user', 'adjust', 1, 50)",
    )


async def test_reconciliation_and_compaction_do_not_wait_for_locks(used: str) -> None:
    """Both finish while another transaction has every account locked."""
    container = Container(settings=postgres_settings(used))
    connection = await asyncpg.connect(used)
    try:
        async with connection.transaction():
            await connection.execute("SELECT FROM user_credits FOR UPDATE")
            async with asyncio.timeout(10):
                assert (await container.audit().reconcile_page()).accounts == 1
                async with container.unit_of_work()() as work:
                    assert await work.credits.cleanup_old_transactions(days=0) == 2
    finally:
        await connection.close()
        await container.shutdown()


def run_verify(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Return exit code and output of `shopassist credits verify`."""
    monkeypatch.setenv("DATABASE_URL", url)
    result = CliRunner().invoke(app, ["credits", "verify"])
    return result.exit_code, result.stdout


def test_verify_without_drift(used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without drift: one line and exit code 0."""
    assert run_verify(used, monkeypatch) == (0, "1 accounts, no drift\n")


async def drift(url: str) -> None:
    """Change a balance without a ledger row, and add a row without an account."""
    await execute(url, "UPDATE user_credits SET available_credits = 40")
    await execute(
        url,
        "INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after) "
        "VALUES ('[red]x', 'adjust', 7, 7)",
    )


@pytest.fixture
async def drifted(used: str) -> str:
    """Provide a database with drift."""
    await drift(used)
    return used


def test_verify_lists_each_drift(drifted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each drift, with expected and found value, and exit code 1."""
    code, output = run_verify(drifted, monkeypatch)
    assert code == 1
    assert output.splitlines() == [
        "'[red]x': ledger rows or holds without an account: expected 0, found 7",
        "'user': available and held credits differ from the sum of the ledger: expected 49, found 40",
        "1 accounts, 2 drifts",
    ]
