"""Leases and records of runs in memory."""

from collections import Counter
from datetime import timedelta

from shopassist.db.memory import MemoryStore, copy_row
from shopassist.db.row_batches import JobResult
from shopassist.maintenance.models import (
    DONE,
    NOTE_LENGTH,
    RUN_RETENTION,
    RUNS_KEPT_PER_JOB,
    JobRecord,
    Lease,
    MaintenanceOverview,
    MaintenanceRun,
    RunReport,
)


class MemoryLeases:
    """Implements `Leases`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock decides."""
        self._store = store

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        now = self._store.now()
        lease = self._store.table(Lease).get(name)
        if lease is not None and lease.holder != holder and lease.expires_at > now:
            return False
        self._store.table(Lease)[name] = Lease(name=name, holder=holder, expires_at=now + lifetime)
        return True

    async def release(self, name: str, holder: str) -> None:
        lease = self._store.table(Lease).get(name)
        if lease is not None and lease.holder == holder:
            del self._store.table(Lease)[name]

    async def holder(self, name: str) -> str | None:
        lease = self._store.table(Lease).get(name)
        return lease.holder if lease is not None and lease.expires_at > self._store.now() else None


class MemoryMaintenanceRuns:
    """Implements `MaintenanceRuns`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock decides."""
        self._store = store

    async def record(self, report: RunReport) -> None:
        now, note = self._store.now(), report.result.note and report.result.note[:NOTE_LENGTH]
        run = MaintenanceRun(
            id=None,
            job=report.job,
            began_at=now - timedelta(seconds=report.seconds),
            finished_at=now,
            outcome=report.outcome,
            did=report.result.rows,
            seconds=report.seconds,
            started_by=report.started_by.value,
            note=note,
        )
        runs = self._store.table(MaintenanceRun)
        newest = next((runs[key] for key in reversed(runs) if runs[key].job == run.job), None)
        if newest is not None and run.did == 0 and _repeat_key(newest) == _repeat_key(run):
            newest.finished_at, newest.seconds, newest.repeats = now, run.seconds, newest.repeats + 1
            return
        run.id = self._store.next_id(MaintenanceRun)
        runs[run.id] = run

    async def overview(self) -> MaintenanceOverview:
        jobs: dict[str, JobRecord] = {}
        for run in self._store.table(MaintenanceRun).values():
            before = jobs.get(run.job)
            earlier = before.last_success_at if before else None
            done_at = run.finished_at if run.outcome == DONE else earlier
            jobs[run.job] = JobRecord(copy_row(run), done_at)
        return MaintenanceOverview(self._store.now(), jobs)

    async def delete_old(self, limit: int = 1000) -> int:
        oldest, places, outcomes = (
            self._store.get_time_before(RUN_RETENTION),
            Counter[str](),
            Counter[tuple[str, str]](),
        )
        gone: list[int] = []
        for key, run in reversed(self._store.table(MaintenanceRun).items()):
            places[run.job] += 1
            outcomes[run.job, run.outcome] += 1
            is_beyond = places[run.job] > RUNS_KEPT_PER_JOB or run.finished_at < oldest
            if is_beyond and outcomes[run.job, run.outcome] > 1:
                gone.append(key)
        for key in gone[::-1][:limit]:
            del self._store.table(MaintenanceRun)[key]
        return min(len(gone), limit)


class MemoryVacuum:
    """Implements `Vacuum`: there are no dead rows."""

    async def vacuum(self) -> JobResult:
        return JobResult()


def _repeat_key(run: MaintenanceRun) -> tuple[str, int, str, str | None]:
    return run.outcome, run.did, run.started_by, run.note
