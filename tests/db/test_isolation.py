"""The isolation level of each kind of operation, whatever the database's own default is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from containers import Container
from shopassist.credits.postgres import repository as audit_statements
from shopassist.db import migrate
from shopassist.db.database import get_role_settings
from shopassist.db.dsn import normalise_dsn
from shopassist.settings.database import DatabaseConfig
from tests.support.helpers import execute, postgres_settings

STRICT = "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'"
LEVEL = "SHOW transaction_isolation"


@pytest.fixture
async def container(database_url: str) -> AsyncIterator[Container]:
    """Build a container on a database with another default isolation level."""
    await execute(database_url, STRICT.format(database_url.rpartition("/")[2]))
    container = Container(settings=postgres_settings(database_url))
    yield container
    await container.shutdown()


async def test_a_unit_of_work_is_read_committed(container: Container) -> None:
    """Its statements see what was committed before each of them; what must not change in between is locked."""
    async with container.database_manager().session() as session:
        assert (await session.execute(text(LEVEL))).scalar_one() == "read committed"


async def test_a_hot_statement_is_read_committed_and_a_transaction_of_its_own(container: Container) -> None:
    """Guarded statements compute with the values that they have locked, which no older snapshot may hide."""
    async with container.database_manager().direct_pool.acquire() as pooled:
        assert await pooled.driver.fetchval(LEVEL) == "read committed"
        first, second = [await pooled.driver.fetchval("SELECT pg_current_xact_id()") for _ in range(2)]
        assert first != second


async def test_the_audit_sees_each_page_at_one_instant(container: Container, database_url: str) -> None:
    """Each account is judged by one statement, so one snapshot also when READ COMMITTED: else a debit were a drift.

    One statement for those that are there, and one, after the last page, for those that are being erased.
    """
    ledger, audit = container.credit_ledger(), container.audit()
    await ledger.get_or_create_account("a", is_guest=False)
    seen: list[str] = []
    async with container.database_manager().direct_pool.acquire() as pooled:
        pooled.driver.add_query_logger(lambda record: seen.append(record.query))
    page = await audit.reconcile_page()
    await asyncio.sleep(0)  # loggers are told one turn later
    assert (page.accounts, page.drifts) == (1, ())
    judging = [query for query in seen if "credit_transactions" in query or "credit_holds" in query]
    assert [query.split("\n")[1] for query in judging] == [
        statement.text.split("\n")[1]
        for statement in (audit_statements.RECONCILE_ACCOUNTS, audit_statements.RECONCILE_ERASING_ACCOUNTS)
    ]
    assert not [query for query in seen if "BEGIN" in query]


async def test_migrations_are_read_committed(empty_database_url: str) -> None:
    """Each statement of a migration's transaction sees what others have committed by then."""
    await execute(empty_database_url, STRICT.format(empty_database_url.rpartition("/")[2]))
    levels: list[str] = []

    def look(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "CREATE TABLE user_credits" in statement:
            levels.append(connection.exec_driver_sql(LEVEL).scalar_one())

    event.listen(Engine, "before_cursor_execute", look)
    try:
        await migrate.upgrade(normalise_dsn(empty_database_url))
    finally:
        event.remove(Engine, "before_cursor_execute", look)
    assert levels == ["read committed"]


def test_the_apps_role_has_it_for_connections_through_a_pooler() -> None:
    """Such connections cannot say it themselves; `shopassist db provision` gives it to the role."""
    assert get_role_settings(DatabaseConfig())["default_transaction_isolation"] == "read committed"
