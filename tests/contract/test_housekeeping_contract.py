"""Contract of the scheduled jobs for both storages."""

from uuid import uuid4

import pytest

from containers import Container
from shopassist.credits.models import CreditAdjustment
from shopassist.credits.ports import CreditRequest
from shopassist.db.ports import TIME_LIMIT_NOTE, JobResult, run_in_batches
from shopassist.maintenance.scheduler import Job
from tests.support.helpers import FixedClock

USER, GUEST = "auth0|1", "guest-1"


async def fill(container: Container) -> None:
    """Create work for each job that is not due yet."""
    ledger, cache = container.credit_ledger(), container.query_cache_service()
    await ledger.get_or_create_account(GUEST, True, "network")
    await ledger.deduct(USER, False, 5, "question")
    await ledger.place_hold(CreditRequest(uuid4(), USER, is_guest=False))
    for letter in "abc":
        await cache.cache_result(letter * 64, {"n": 1})
    change = CreditAdjustment(amount=1, reason="goodwill")
    await container.adjustment_service().adjust(USER, change, "admin", "key")


def get_job(container: Container, name: str) -> Job:
    """Return the job of that name."""
    [job] = [job for job in container.jobs().jobs if job.name == name]
    return job


async def run_job(container: Container, name: str) -> int:
    """Run the job of that name; return the number of rows."""
    work = await get_job(container, name).work()
    assert not work.has_more
    return work.rows


async def test_jobs_leave_fresh_state_alone(container: Container) -> None:
    """Each job leaves fresh state alone; reconciliation reads every account."""
    await fill(container)
    done = {job.name: (await job.work()).rows for job in container.jobs().jobs}
    assert done == {**dict.fromkeys(done, 0), "verify_ledger": 2}
    assert len(done) == 11


async def test_each_job_processes_its_rows_once(container: Container, clock: FixedClock) -> None:
    """After its time has passed, each job processes its rows once."""
    await fill(container)
    clock.move(days=2)
    wanted = {
        "void_expired_holds": 1,
        "reset_due_credits": 1,
        "forget_idempotent_answers": 1,
        "forget_guest_networks": 1,
        "clear_expired_cache": 3,
    }
    for name, expected in wanted.items():
        assert (name, await run_job(container, name)) == (name, expected)
        assert (name, await run_job(container, name)) == (name, 0)
    clock.move(days=91)
    assert await run_job(container, "fold_old_transactions") > 3
    assert await run_job(container, "fold_old_transactions") == 0
    report = await container.ledger_reconciliation().verify()
    assert report is not None
    assert report.drifting_accounts == 0


async def test_batches_respect_their_limit(container: Container, clock: FixedClock) -> None:
    """No batch exceeds its limit."""
    for number in range(5):
        await container.query_cache_service().cache_result(f"{number}" * 64, {"n": number})
    clock.move(hours=2)
    batch = container.query_cache_service().clear_expired_batch
    assert [await batch(2), await batch(2), await batch(2), await batch(2)] == [2, 2, 1, 0]


async def test_a_run_ends_at_its_time_limit(container: Container, clock: FixedClock) -> None:
    """The rest is left for the next runs."""
    for number in range(5):
        await container.query_cache_service().cache_result(f"{number}" * 64, {"n": number})
    clock.move(hours=2)
    batch = container.query_cache_service().clear_expired_batch
    first = await run_in_batches(batch, limit=2, seconds=0)
    assert (first.rows, first.has_more, first.note) == (2, True, TIME_LIMIT_NOTE)
    second = await run_in_batches(batch, limit=2)
    assert (second.rows, second.has_more, second.note) == (3, False, None)


@pytest.mark.parametrize("name", ["fold_old_transactions", "verify_ledger"])
async def test_long_jobs_continue_where_the_last_run_stopped(
    container: Container, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Many runs without time process the same rows as one run."""
    for number in range(3):
        await container.credit_ledger().deduct(f"user-{number}", False, 1, "x")
    clock.move(days=91)
    monkeypatch.setattr("shopassist.maintenance.scheduler.JOB_TIME_LIMIT_SECONDS", 0.0)
    work = get_job(container, name).work
    turns = [await work()]
    while turns[-1].has_more:
        assert len(turns) < 10
        turns.append(await work())
    assert sum(turn.rows for turn in turns) == {"fold_old_transactions": 6, "verify_ledger": 3}[name]


async def test_an_erasure_is_finished_by_later_runs(container: Container) -> None:
    """An erasure is counted only when it is finished."""
    await container.credit_ledger().get_or_create_account(USER, False)
    await container.erasure_service().erase(USER, False, patience_seconds=-1)
    counters = container.erasure_counters()
    turns = 0
    while (await container.erasure_service().finish_pending(0)).has_more:
        turns += 1
        assert turns < 20
    assert counters == {"user": 1}


async def test_vacuum_leaves_small_tables_alone(container: Container) -> None:
    """A fresh database has no due table."""
    assert await get_job(container, "vacuum").work() == JobResult()
