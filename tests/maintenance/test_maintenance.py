"""Maintenance on PostgreSQL: one leader, time limits, records, vacuum of due tables, and the commands."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from containers import Container
from shopassist.cli import app
from shopassist.db.ports import TIME_LIMIT_NOTE, JobResult, run_in_batches
from shopassist.errors import ShopAssistError, StartupError
from shopassist.maintenance.models import DONE
from shopassist.maintenance.postgres import MIN_VACUUM_ROWS, NEEDS_SESSION_NOTE, vacuum_due_tables
from shopassist.maintenance.scheduler import Job, JobScheduler
from shopassist.settings.database import PoolMode
from tests.support.helpers import execute, postgres_settings
from tests.support.servers import TestServer

EXPIRED_ANSWERS = """
INSERT INTO query_cache (query_hash, result, cached_at, expires_at)
SELECT md5(n::text), '{}', now() - interval '2 days', now() - interval '1 day' FROM generate_series(1, 5500) n
"""
ACCOUNTS = """
INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
SELECT 'user ' || n, true, 0, 10, now() FROM generate_series(1, 10500) n
"""
LATELY = "last_vacuum IS NOT NULL AND last_analyze IS NOT NULL"


@pytest.fixture
async def container(database_url: str) -> AsyncIterator[Container]:
    """Provide a container on the database, with the database's clock."""
    container = Container(settings=postgres_settings(database_url))
    yield container
    await container.shutdown()


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Provide a connection to the database."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.05)


async def at_once() -> None:
    """Return immediately: jobs may start."""


async def run(*arguments: str) -> tuple[int, str]:
    """Run a command; return exit code and output. Raises its error."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["maintenance", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


# One leader.


async def test_one_process_leads_and_another_takes_over(database_url: str) -> None:
    """Only the leader runs and records jobs; when it stops, the other process runs them."""
    one, other = (Container(settings=postgres_settings(database_url)) for _ in range(2))
    wanted = {job.name for job in one.jobs().jobs}

    async def has_done_all(jobs: JobScheduler) -> bool:
        return {name for name, turn in jobs.states.items() if turn.last_success_at} == wanted

    async with AsyncExitStack() as second:
        async with one.jobs().run_while(at_once):
            await until(lambda: has_done_all(one.jobs()))
            await second.enter_async_context(other.jobs().run_while(at_once))
            await asyncio.sleep(2)
            assert (one.jobs().is_leader, other.jobs().is_leader) == (True, False)
            assert other.jobs().states == {}
            assert await one.leases().holder("scheduler") == await other.leases().holder("scheduler")
        await until(lambda: has_done_all(other.jobs()))
    overview = await one.maintenance_runs().overview()
    assert {name for name, record in overview.jobs.items() if record.last_run.outcome == DONE} == wanted
    assert await one.leases().holder("scheduler") is None
    await one.shutdown()
    await other.shutdown()


async def test_a_failing_job_is_retried_and_stops_no_other(container: Container) -> None:
    """Each failure is recorded with its error and counted; a daily job is retried long before the next day."""

    async def refused() -> JobResult:
        raise ShopAssistError

    async def broken() -> JobResult:
        raise ZeroDivisionError

    async def sound() -> JobResult:
        return JobResult(7)

    day = timedelta(days=1)
    jobs = JobScheduler(
        container.leases(),
        [Job("refused", day, refused), Job("broken", day, broken), Job("sound", day, sound)],
        container.maintenance_runs(),
    )
    began = time.monotonic()

    async def recorded() -> bool:
        return len((await container.maintenance_runs().overview()).jobs) == 3

    async with jobs.run_while(at_once):
        await until(recorded)
    runs = {name: record.last_run for name, record in (await container.maintenance_runs().overview()).jobs.items()}
    assert (runs["refused"].outcome, runs["refused"].note) == (ShopAssistError.code, None)
    assert (runs["broken"].outcome, runs["broken"].note) == ("failed", "ZeroDivisionError")
    assert (runs["sound"].outcome, runs["sound"].did) == (DONE, 7)
    turns = jobs.states
    assert all(turns[name].due_at - began < 400 for name in ("refused", "broken"))
    assert turns["sound"].due_at - began > 80_000
    assert turns["broken"].outcomes == {"failed": 1}


# Bounded time.


async def test_a_backlog_is_processed_in_runs_of_limited_time(
    container: Container, connection: asyncpg.Connection
) -> None:
    """A run ends at its time limit, reports that rows are left, and commits after each batch."""
    await connection.execute(EXPIRED_ANSWERS)
    left = "SELECT count(*) FROM query_cache"
    batch = container.query_cache_service().clear_expired_batch
    turn = await run_in_batches(batch, seconds=0)
    assert (turn.rows, turn.note) == (1000, TIME_LIMIT_NOTE)
    assert await connection.fetchval(left) == 4500

    async def slowly(limit: int) -> int:
        await asyncio.sleep(0.2)
        return await batch(limit)

    began = time.monotonic()
    turn = await run_in_batches(slowly, limit=500, seconds=0.5)
    assert turn.has_more
    assert 500 <= turn.rows <= 1500
    assert time.monotonic() - began < 5  # generous, for a busy machine
    rest = await run_in_batches(batch)
    assert (rest.rows, rest.has_more) == (4500 - turn.rows, False)
    assert await connection.fetchval(left) == 0


async def test_the_leader_continues_an_incomplete_job(container: Container, connection: asyncpg.Connection) -> None:
    """The next poll starts the job again, whatever its interval; each run is recorded."""
    await connection.execute(EXPIRED_ANSWERS)
    batch = container.query_cache_service().clear_expired_batch

    async def turn() -> JobResult:
        return await run_in_batches(batch, limit=2000, seconds=0)

    runs = container.maintenance_runs()
    jobs = JobScheduler(container.leases(), [Job("sweep", timedelta(days=1), turn)], runs)

    async def is_done() -> bool:
        return jobs.states["sweep"].rows == 5500 if "sweep" in jobs.states else False

    async with jobs.run_while(at_once):
        await until(is_done)
        await until(lambda: _count_is(connection, 3))
    rows = await connection.fetch("SELECT did, note FROM maintenance_runs ORDER BY id")
    assert [tuple(row) for row in rows] == [(2000, TIME_LIMIT_NOTE), (2000, TIME_LIMIT_NOTE), (1500, None)]


async def _count_is(connection: asyncpg.Connection, wanted: int) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM maintenance_runs") == wanted)


async def test_verification_continues_where_the_last_run_stopped(
    container: Container, connection: asyncpg.Connection
) -> None:
    """Several runs verify page by page; the last note has the drift of all of them."""
    await connection.execute(ACCOUNTS)
    await connection.execute("UPDATE user_credits SET available_credits = 4 WHERE user_id IN ('user 1', 'user 9999')")
    audit = container.ledger_reconciliation()
    turns = [await audit.verify_within(0)]
    while turns[-1].has_more:
        turns.append(await audit.verify_within(0))
    assert [turn.rows for turn in turns] == [5000, 5000, 500]
    assert turns[-1].note == "2 accounts drift: `shopassist credits verify`"
    assert (await audit.verify_within(60)).rows == 10_500


# Vacuum.


async def dead_rows(url: str, table: str, rows: int) -> None:
    """Fill a table with dead rows, without autovacuum, and wait for its statistics."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    await connection.execute(EXPIRED_ANSWERS.replace("5500", str(rows)) if table == "query_cache" else ACCOUNTS)
    await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.close()


async def test_only_due_tables_are_vacuumed(
    database_url: str, container: Container, connection: asyncpg.Connection
) -> None:
    """A table with thousands of dead rows is vacuumed and analysed once; others are not."""
    await dead_rows(database_url, "query_cache", MIN_VACUUM_ROWS + 10)
    await execute(
        database_url,
        "ALTER TABLE leases SET (autovacuum_enabled = false); INSERT INTO leases SELECT 'x ' || n, 'y', now() "
        "FROM generate_series(1, 4000) n; DELETE FROM leases; SELECT pg_stat_force_next_flush()",
    )
    dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'query_cache'"

    async def is_seen() -> bool:
        return bool(await connection.fetchval(dead) > MIN_VACUUM_ROWS)

    await until(is_seen)
    work = await container.vacuum()()
    assert work == JobResult(1, note="query_cache")
    vacuumed = f"SELECT relname FROM pg_stat_user_tables WHERE {LATELY}"  # noqa: S608 - ours
    assert [row[0] for row in await connection.fetch(vacuumed)] == ["query_cache"]
    assert await connection.fetchval(dead) == 0
    assert await container.vacuum()() == JobResult()


async def test_vacuum_skips_locked_tables_and_needs_a_session(
    database_url: str, container: Container, connection: asyncpg.Connection
) -> None:
    """The note names the locked table, or the missing setting."""
    await dead_rows(database_url, "query_cache", MIN_VACUUM_ROWS + 10)
    async with connection.transaction():
        await connection.execute("LOCK TABLE query_cache IN SHARE UPDATE EXCLUSIVE MODE")
        work = await container.vacuum()()
    assert work == JobResult(0, note="locked by others, left for the next time: query_cache")
    settings = postgres_settings(database_url)
    pooled = settings.model_copy(
        update={"database": settings.database.model_copy(update={"pool_mode": PoolMode.TRANSACTION})}
    )
    assert await vacuum_due_tables(pooled) == JobResult(note=NEEDS_SESSION_NOTE)


# The commands.


@pytest.mark.timeout(180)
async def test_commands_while_a_server_runs(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection
) -> None:
    """`status` names the leader, and fails while some jobs ran and others did not; `run` works through a backlog."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    code, shown = await run("status")
    assert (code, shown.splitlines()[-1]) == (0, "11 jobs, all well")
    assert shown.count("never ran") == 11
    assert "overdue" not in shown
    assert "leader: none" in shown
    await run("run", "clear_expired_cache")
    code, shown = await run("status")
    assert (code, shown.count("overdue: it never ran")) == (1, 10)
    server = await asyncio.to_thread(TestServer(tmp_path, database_url).wait_until_ready)
    try:

        async def is_well() -> bool:
            return (await run("status"))[0] == 0

        await until(is_well)
        _, shown = await run("status")
        lines = shown.splitlines()
        [line] = [line for line in lines if "clear_expired_cache" in line]
        assert line.startswith("ok")
        assert "UTC" in line
        assert "5 min" in line
        assert lines[-2].startswith("leader: ")
        assert "none" not in lines[-2]
        assert lines[-1] == "11 jobs, all well"
        await connection.execute(EXPIRED_ANSWERS)
        code, shown = await run("run", "clear_expired_cache")
        assert (code, shown.split(" in ")[0]) == (0, "clear_expired_cache: done, 5,500")
        row = await connection.fetchrow(
            "SELECT job, did FROM maintenance_runs WHERE started_by = 'operator' ORDER BY did DESC LIMIT 1"
        )
        assert row
        assert tuple(row) == ("clear_expired_cache", 5500)
        assert "by operator" in (await run("status"))[1]
        code, shown = await run("run")
        assert (code, len(shown.splitlines())) == (0, 11)
    finally:
        server.stop()


async def test_a_failing_manual_run_is_reported_and_recorded(
    database_url: str, monkeypatch: pytest.MonkeyPatch, connection: asyncpg.Connection
) -> None:
    """The other jobs run, and `status` shows the failure."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    await connection.execute("ALTER TABLE guest_networks RENAME TO elsewhere")
    code, shown = await run("run", "forget_guest_networks", "forget_runs")
    assert code == 1
    assert "forget_guest_networks: failed" in shown
    assert "forget_runs: done" in shown
    code, shown = await run("status")
    [line] = [line for line in shown.splitlines() if "forget_guest_networks" in line]
    assert code == 1
    assert line.startswith("!!")
    assert "failing: failed" in line


@pytest.mark.parametrize(
    ("environment", "arguments", "said"),
    [
        ({}, ["run", "made_up"], "There is no job made_up: there are void_expired_holds, finish_erasures"),
        ({"STORAGE": "memory"}, ["run"], "nothing can be run from outside"),
        ({"STORAGE": "memory"}, ["status"], "nothing can be run from outside"),
        ({"STORAGE": "rollout"}, ["run"], "left to it"),
    ],
)
async def test_refusals_of_the_commands(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    arguments: list[str],
    said: str,
) -> None:
    """The error is one sentence."""
    for name, value in {"DATABASE_URL": database_url, **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as refusal:
        await run(*arguments)
    assert said in refusal.value.detail
