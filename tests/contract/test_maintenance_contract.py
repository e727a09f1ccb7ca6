"""Contract of run records and leases for both storages."""

from datetime import timedelta

from containers import Container
from shopassist.db.ports import JobResult
from shopassist.maintenance.models import DONE, NOTE_LENGTH, RUNS_KEPT_PER_JOB, MaintenanceRuns, RunReport, StartedBy
from shopassist.maintenance.scheduler import Job
from tests.support.helpers import FixedClock


def report(did: int = 0, outcome: str = DONE, note: str | None = None, job: str = "sweep") -> RunReport:
    """Return a report of a run of half a second."""
    return RunReport(job, outcome, JobResult(did, note=note), 0.5)


async def count(runs: MaintenanceRuns) -> int:
    """Delete all runs; return how many there were."""
    forgotten = 0
    while some := await runs.delete_old(7):
        assert some <= 7
        forgotten += some
    return forgotten + len((await runs.overview()).jobs)


async def test_a_run_is_recorded(container: Container, clock: FixedClock) -> None:
    """A record has start, end, rows, note and starter; a job that never ran has none."""
    runs = container.maintenance_runs()
    assert (await runs.overview()).jobs == {}
    note = "₹" * (NOTE_LENGTH + 100)
    await runs.record(RunReport("sweep", DONE, JobResult(3, has_more=True, note=note), 0.5, StartedBy.OPERATOR))
    overview = await runs.overview()
    assert overview.now == clock.time
    assert set(overview.jobs) == {"sweep"}
    newest, done_at = overview.jobs["sweep"].last_run, overview.jobs["sweep"].last_success_at
    assert (newest.began_at, newest.finished_at) == (clock.time - timedelta(seconds=0.5), clock.time)
    assert (newest.outcome, newest.did, newest.seconds, newest.repeats) == (DONE, 3, 0.5, 1)
    assert (newest.started_by, newest.note, done_at) == ("operator", note[:NOTE_LENGTH], clock.time)


async def test_repeated_runs_without_rows_are_counted_together(container: Container, clock: FixedClock) -> None:
    """Consecutive runs are counted in one row until rows, outcome, note or starter differ."""
    runs = container.maintenance_runs()
    began = clock.time - timedelta(seconds=0.5)
    for _ in range(3):
        await runs.record(report())
        clock.move(seconds=5)
    newest = (await runs.overview()).jobs["sweep"].last_run
    assert (newest.repeats, newest.began_at, newest.finished_at) == (3, began, clock.time - timedelta(seconds=5))
    for other in (
        report(did=1),
        report(did=1),
        report(),
        report(note="left"),
        report(outcome="failed"),
        RunReport("sweep", "failed", JobResult(), 0.5, StartedBy.OPERATOR),
    ):
        await runs.record(other)
        assert (await runs.overview()).jobs["sweep"].last_run.repeats == 1
    await runs.record(report(job="another"))
    assert (await runs.overview()).jobs["another"].last_run.repeats == 1


async def test_the_last_success_outlives_failures(container: Container, clock: FixedClock) -> None:
    """The last success stays known after failures; a job that never succeeded has none."""
    runs = container.maintenance_runs()
    await runs.record(report(did=2))
    done_at = clock.time
    clock.move(hours=1)
    await runs.record(report(outcome="storage_unavailable"))
    await runs.record(report(outcome="failed", job="broken"))
    jobs = (await runs.overview()).jobs
    assert (jobs["sweep"].last_run.outcome, jobs["sweep"].last_success_at) == ("storage_unavailable", done_at)
    assert jobs["broken"].last_success_at is None


async def test_old_and_surplus_runs_are_deleted(container: Container, clock: FixedClock) -> None:
    """The newest runs of each job and of each outcome stay; a call deletes no more than its limit."""
    runs = container.maintenance_runs()
    await runs.record(report(outcome="failed"))
    for _ in range(RUNS_KEPT_PER_JOB + 9):
        await runs.record(report(did=1))
    await runs.record(report(job="rare"))
    assert await runs.delete_old(6) == 6
    assert await runs.delete_old() == 3
    assert await runs.delete_old() == 0
    clock.move(days=91)
    assert await runs.delete_old() == RUNS_KEPT_PER_JOB - 1
    assert await runs.delete_old() == 0
    await runs.record(report(did=1))
    assert await count(runs) == 3
    assert (await runs.overview()).jobs["sweep"].last_success_at == clock.time


async def test_the_holder_of_a_lease_is_known_until_it_ends(container: Container, clock: FixedClock) -> None:
    """An expired or released lease has no holder."""
    leases = container.leases()
    assert await leases.holder("scheduler") is None
    await leases.acquire("scheduler", "me", timedelta(seconds=7))
    assert await leases.holder("scheduler") == "me"
    clock.move(seconds=8)
    assert await leases.holder("scheduler") is None
    await leases.acquire("scheduler", "other", timedelta(seconds=7))
    await leases.release("scheduler", "other")
    assert await leases.holder("scheduler") is None


async def test_a_manual_run_is_recorded_also_when_it_fails(container: Container) -> None:
    """It has the error's type, never its text; the next job still runs."""

    async def fail() -> JobResult:
        raise ZeroDivisionError("a user's name")

    async def work() -> JobResult:
        return JobResult(4)

    jobs = container.jobs()
    every = timedelta(hours=1)
    for job in (Job("broken", every, fail), Job("sound", every, work)):
        await jobs.run(job, StartedBy.OPERATOR)
    recorded = (await container.maintenance_runs().overview()).jobs
    broken, sound = recorded["broken"].last_run, recorded["sound"].last_run
    assert (broken.outcome, broken.note, broken.started_by) == ("failed", "ZeroDivisionError", "operator")
    assert (sound.outcome, sound.did) == (DONE, 4)
