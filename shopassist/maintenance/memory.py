"""Leases and records of runs in memory."""

from collections import Counter
from datetime import timedelta

from shopassist.db.memory import MemoryStore, copy_row
from shopassist.db.ports import JobResult
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
        """Use the store's clock."""
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
        """Use the store's clock."""
        self._store = store

    async def record(self, report: RunReport) -> None:
        now, note = self._store.now(), report.result.note and report.result.note[:NOTE_LENGTH]
        runs = self._store.table(MaintenanceRun)
        last = next((run for run in reversed(runs.values()) if run.job == report.job), None)
        repeated = report.outcome, 0, report.started_by.value, note
        if last and not report.result.rows and (last.outcome, last.did, last.started_by, last.note) == repeated:
            last.finished_at, last.seconds, last.repeats = now, report.seconds, last.repeats + 1
            return
        number = self._store.next_id(MaintenanceRun)
        runs[number] = MaintenanceRun(
            id=number,
            job=report.job,
            began_at=now - timedelta(seconds=report.seconds),
            finished_at=now,
            outcome=report.outcome,
            did=report.result.rows,
            seconds=report.seconds,
            started_by=report.started_by.value,
            note=note,
        )

    async def overview(self) -> MaintenanceOverview:
        jobs: dict[str, JobRecord] = {}
        for run in self._store.table(MaintenanceRun).values():
            earlier = jobs.get(run.job)
            last_success_at = earlier.last_success_at if earlier else None
            jobs[run.job] = JobRecord(copy_row(run), run.finished_at if run.outcome == DONE else last_success_at)
        return MaintenanceOverview(self._store.now(), jobs)

    async def delete_old(self, limit: int = 1000) -> int:
        runs, oldest = self._store.table(MaintenanceRun), self._store.now() - RUN_RETENTION
        by_job, by_outcome = Counter[str](), Counter[tuple[str, str]]()
        old: list[int] = []
        for key, run in reversed(runs.items()):
            by_job[run.job] += 1
            by_outcome[run.job, run.outcome] += 1
            is_old = by_job[run.job] > RUNS_KEPT_PER_JOB or run.finished_at < oldest
            if is_old and by_outcome[run.job, run.outcome] > 1:
                old.append(key)
        for key in old[::-1][:limit]:
            del runs[key]
        return min(len(old), limit)


async def skip_vacuum() -> JobResult:
    """Do nothing, since memory has no dead rows."""
    return JobResult()
