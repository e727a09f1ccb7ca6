"""Erasure in PostgreSQL: killed servers, races, 100,000 rows, and the operator's commands."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from typer.testing import CliRunner

from containers import Container
from shopassist.cli import app
from shopassist.consent.models import UserConsentCreate
from shopassist.errors import AccountErasedError, NotFoundError, StorageUnavailableError
from shopassist.privacy.models import AskedBy, ErasureRequest, UserExport
from tests.support.helpers import execute, postgres_settings
from tests.support.servers import TestServer

GUEST = "guest-to-be-erased"
FILL = """
INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
VALUES ('guest-to-be-erased', true, {rows}, 10, now());
INSERT INTO credit_transactions (user_id, transaction_type, amount, description, balance_after)
SELECT 'guest-to-be-erased', 'adjust', 1, 'guest-to-be-erased said so', n FROM generate_series(1, {rows}) n;
INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
SELECT 'guest-to-be-erased', 'key ' || n, 'hash', jsonb_build_object('metadata', 'guest-to-be-erased'),
       now() + interval '1 day' FROM generate_series(1, 3000) n;
"""


@pytest.fixture
async def container(database_url: str) -> AsyncIterator[Container]:
    """Return a container on the database, using the database's clock."""
    container = Container(settings=postgres_settings(database_url))
    yield container
    await container.shutdown()


MOVED = "SELECT count(*) FROM credit_transactions WHERE user_id LIKE 'erased%'"


async def find_tables_with(url: str, marker: str) -> list[str]:
    """Return the tables that contain the marker in any column."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        found = []
        for (name,) in tables:
            statement = f"SELECT count(*) FROM {name} t WHERE strpos(t::text, $1) > 0"  # noqa: S608 - names of ours
            if await connection.fetchval(statement, marker):
                found.append(name)
        return found
    finally:
        await connection.close()


async def text_of(url: str, statement: str) -> str:
    """Return the text that a statement selects."""
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval(statement))
    finally:
        await connection.close()


async def value_of(url: str, statement: str) -> int:
    """Return the number that a statement selects."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(statement))
    finally:
        await connection.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", [pytest.param("asking again", marks=pytest.mark.faults), "the scheduled job"])
async def test_an_erasure_killed_half_way_is_finished(database_url: str, tmp_path: Path, by: str) -> None:
    """After SIGKILL during an erasure, the next request or the job of a new server finishes it."""
    await execute(database_url, FILL.format(rows=12_000))
    server = await asyncio.to_thread(TestServer(tmp_path, database_url).wait_until_ready)
    try:
        asking = asyncio.create_task(
            asyncio.to_thread(server.call, "DELETE", "/api/user", None, {"X-Session-ID": GUEST})
        )
        async with asyncio.timeout(60):
            while await value_of(database_url, MOVED) < 2000:
                await asyncio.sleep(0.01)
    finally:
        server.kill()
    await asyncio.gather(asking, return_exceptions=True)
    assert await value_of(database_url, "SELECT count(*) FROM erasures WHERE finished_at IS NULL") == 1
    assert "credit_transactions" in await find_tables_with(database_url, GUEST)
    half_way = Container(settings=postgres_settings(database_url))
    report = await half_way.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0
    server = await asyncio.to_thread(TestServer(tmp_path, database_url).wait_until_ready)
    try:
        async with asyncio.timeout(90):
            while await value_of(database_url, "SELECT count(*) FROM erasures WHERE finished_at IS NULL"):
                if by == "asking again":
                    await asyncio.to_thread(server.call, "DELETE", "/api/user", None, {"X-Session-ID": GUEST})
                await asyncio.sleep(0.1)
        status, receipt, _ = await asyncio.to_thread(server.call, "DELETE", "/api/user", None, {"X-Session-ID": GUEST})
    finally:
        server.kill()
    assert status == 200
    assert receipt["pseudonymised"] == {"transactions": 12_000}
    assert receipt["erased"] == {"account": 1, "holds": 0, "remembered_answers": 3000}
    assert await find_tables_with(database_url, GUEST) == []
    report = await half_way.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0
    assert await value_of(database_url, "SELECT sum(amount) FROM credit_transactions") == 0
    assert GUEST not in server.log.read_text()
    await half_way.shutdown()


async def test_other_users_do_not_wait_for_an_erasure(database_url: str, container: Container) -> None:
    """While 100,000 rows are erased, other users can spend and each step is short."""
    await execute(database_url, FILL.format(rows=100_000))
    spent, longest = 0, 0.0

    async def spend() -> None:
        nonlocal spent, longest
        while not erasing.done():
            began = time.monotonic()
            with suppress(StorageUnavailableError):  # which a busy machine may be, too
                assert (await container.credit_ledger().deduct("other", False, 1, "x")).granted
                longest, spent = max(longest, time.monotonic() - began), spent + 1
                await container.credit_ledger().reset("other")
            await asyncio.sleep(0.01)

    erasing = asyncio.ensure_future(container.erasure_service().erase(GUEST, True, patience_seconds=100))
    await spend()
    assert (await erasing).finished_at is not None
    assert spent > 5
    assert longest < 5


async def test_opening_an_account_during_its_erasure_does_not_refill(container: Container) -> None:
    """Reads that race with an erasure never give more credits than there were."""
    for _ in range(15):
        user = f"racer-{uuid4()}"
        await container.credit_ledger().deduct(user, False, 50, "x")

        async def look(user: str = user) -> int:
            try:
                return await container.credit_service().check_credits(user)
            except AccountErasedError:
                return 0

        erasing = container.erasure_service().erase(user, False)
        outcomes = await asyncio.gather(erasing, *(look() for _ in range(10)), return_exceptions=True)
        assert set(outcomes[1:]) == {0}
        assert await look() == 0
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_opening_waits_for_an_erasure_that_has_begun(database_url: str, container: Container) -> None:
    """Opening an account waits for the first step of its erasure, and then sees the erasure."""
    subject = container.user_hasher()("user")
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 19))", subject)
        opening = asyncio.create_task(container.credit_ledger().get_or_create_account("user", False))
        async with asyncio.timeout(20):
            while not await value_of(database_url, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0.01)
        await connection.execute(
            "INSERT INTO erased_balances VALUES ($1, false, 7, now(), now() + interval '1 day')", subject
        )
    assert (await opening).available_credits == 7
    await connection.close()


async def test_answers_to_administrators_about_the_user_are_erased(database_url: str, container: Container) -> None:
    """Nothing in any table names an erased person."""
    from shopassist.credits.models import CreditAdjustment  # noqa: PLC0415

    await container.credit_ledger().get_or_create_account("marker-person", False)
    await container.consent_service().create_consent("marker-person", UserConsentCreate())
    change = CreditAdjustment(amount=1, reason="marker-person wrote a letter")
    await container.adjustment_service().adjust("marker-person", change, "admin", "key")
    assert len(await find_tables_with(database_url, "marker-person")) >= 4
    await container.erasure_service().erase("marker-person", False)
    assert await find_tables_with(database_url, "marker-person") == []


def run(*arguments: str) -> tuple[int, str]:
    """Run a command and return its exit code and output; raise its exception."""
    result = CliRunner().invoke(app, [*arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


async def test_the_operators_commands(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: Container
) -> None:
    """Export, erase, keep the list outside, and replay it on an older state of the database."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    await execute(database_url, FILL.format(rows=10))
    file, listed = tmp_path / "export.json", tmp_path / "erasures.jsonl"
    await asyncio.to_thread(run, "user", "export", GUEST, "--to", str(file))
    export = UserExport.model_validate_json(file.read_bytes())
    assert export.is_guest
    assert len(export.held["transactions"]) == 10
    looked = "SELECT target FROM admin_audit WHERE act = 'export_user' AND actor LIKE 'operator:%'"
    assert await text_of(database_url, looked) == GUEST
    _, shown = await asyncio.to_thread(run, "user", "erase", GUEST, "--yes")
    assert (await text_of(database_url, looked)).startswith("erased")
    erased = "SELECT target FROM admin_audit WHERE act = 'erase_user' AND actor LIKE 'operator:%'"
    assert await text_of(database_url, erased) == json.loads(shown)["receipt_id"]
    assert json.loads(shown)["pseudonymised"] == {"transactions": 10, "administrators_acts": 1}
    assert GUEST not in shown
    assert await asyncio.to_thread(run, "user", "erasures", "export", str(listed)) == (0, "1 added\n")
    with listed.open("a") as opened:
        opened.write('{"id": "cut sho')
    assert await asyncio.to_thread(run, "user", "erasures", "export", str(listed)) == (0, "0 added\n")
    assert len(listed.read_text().splitlines()) == 1
    assert GUEST not in listed.read_text()
    with pytest.raises(NotFoundError):
        await asyncio.to_thread(run, "user", "erase", "unknown", "--yes")
    # An older backup knows of the guest and of no erasure.
    await execute(database_url, "DELETE FROM erasures; DELETE FROM erased_balances;")
    await execute(database_url, FILL.format(rows=10))
    await execute(database_url, "UPDATE user_credits SET created_at = now() - interval '1 day'")
    assert await asyncio.to_thread(run, "user", "erasures", "replay", str(listed)) == (0, "1 erased again\n")
    assert await asyncio.to_thread(run, "user", "erasures", "replay", str(listed)) == (0, "0 erased again\n")
    assert await find_tables_with(database_url, GUEST) == []
    request = ErasureRequest(GUEST, container.user_hasher()(GUEST), None, AskedBy.OPERATOR)
    assert await container.erasures().begin(request) is not None
    assert await container.erasures().list_unfinished() == []
