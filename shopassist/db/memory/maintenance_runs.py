"""What jobs have done, in memory."""

from collections import Counter
from datetime import timedelta

from shopassist.db.memory.repository import copied
from shopassist.db.memory.store import MemoryStore
from shopassist.models import MaintenanceRun
from shopassist.models.maintenance import DONE, KEPT_FOR, KEPT_RUNS, NOTE_LENGTH, JobRecord, Overview, RunReport, Work


class MemoryMaintenanceRuns:
    """Implements `MaintenanceRuns`."""

    def __init__(self, store: MemoryStore) -> None:
        """The store's clock decides."""
        self._store = store

    async def record(self, report: RunReport) -> None:
        now, note = self._store.now(), report.work.note and report.work.note[:NOTE_LENGTH]
        run = MaintenanceRun(
            id=None,
            job=report.job,
            began_at=now - timedelta(seconds=report.seconds),
            finished_at=now,
            outcome=report.outcome,
            did=report.work.did,
            seconds=report.seconds,
            started_by=report.started_by.value,
            note=note,
        )
        runs = self._store.maintenance_runs
        newest = next((runs[key] for key in reversed(runs) if runs[key].job == run.job), None)
        if newest is not None and run.did == 0 and _kind(newest) == _kind(run):
            newest.finished_at, newest.seconds, newest.repeats = now, run.seconds, newest.repeats + 1
            return
        run.id = self._store.next_id("maintenance_runs")
        runs[run.id] = run

    async def overview(self) -> Overview:
        jobs: dict[str, JobRecord] = {}
        for run in self._store.maintenance_runs.values():
            before = jobs.get(run.job)
            earlier = before.done_at if before else None
            done_at = run.finished_at if run.outcome == DONE else earlier
            jobs[run.job] = JobRecord(copied(run), done_at)
        return Overview(self._store.now(), jobs)

    async def forget(self, limit: int = 1000) -> int:
        oldest, places, outcomes = self._store.ago(KEPT_FOR), Counter[str](), Counter[tuple[str, str]]()
        gone: list[int] = []
        for key, run in reversed(self._store.maintenance_runs.items()):
            places[run.job] += 1
            outcomes[run.job, run.outcome] += 1
            is_beyond = places[run.job] > KEPT_RUNS or run.finished_at < oldest
            if is_beyond and outcomes[run.job, run.outcome] > 1:
                gone.append(key)
        for key in gone[::-1][:limit]:
            del self._store.maintenance_runs[key]
        return min(len(gone), limit)


class MemoryVacuum:
    """Implements `Vacuum`: there are no dead rows."""

    async def vacuum(self) -> Work:
        return Work()


def _kind(run: MaintenanceRun) -> tuple[str, int, str, str | None]:
    return run.outcome, run.did, run.started_by, run.note
