"""Runs scheduled jobs in one process at a time: the holder of the lease."""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

import structlog

from shopassist.db.row_batches import JobResult
from shopassist.errors import ShopAssistError
from shopassist.maintenance.models import DONE, RunReport, StartedBy
from shopassist.maintenance.ports import Leases, MaintenanceRuns

logger = structlog.get_logger(__name__)

LEASE_NAME = "scheduler"
LEASE_LIFETIME = timedelta(seconds=7)
POLL_SECONDS = 1.5
"""A leader that dies is followed within the lease's lifetime and one tick, 8.5 seconds."""

RETRY_SECONDS = 300.0
"""What failed is tried again after so long at the latest: a day is long where the database was away for a moment."""

STORAGE_TIMEOUT_SECONDS = 2.0
"""How long the lease is asked for: with a tick, well within its lifetime."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work to do `every` so often; it must bear being done twice, and being stopped half-way."""

    name: str
    every: timedelta
    work: Callable[[], Awaitable[JobResult]]


@dataclass(slots=True)
class JobState:
    """Where a job stands in this process; `last_success_at` in seconds since the epoch, 0 for never."""

    due_at: float = 0.0
    task: asyncio.Task[None] | None = None
    last: str = "not run here"
    outcomes: Counter[str] = field(default_factory=Counter)
    last_success_at: float = 0.0
    seconds: float = 0.0
    rows: int = 0


@dataclass(slots=True)
class JobScheduler:
    """Runs jobs while the server does, and records each run."""

    leases: Leases
    jobs: Sequence[Job]
    runs: MaintenanceRuns
    _holder: str = field(default_factory=lambda: f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:12]}")
    _turns: dict[str, JobState] = field(default_factory=dict)
    _leading: bool = False
    _failing: bool = False
    _unrecorded: bool = False

    @asynccontextmanager
    async def run_while(self, ready: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Run the jobs for the length of the block, once `ready` is over; the lease is given back at its end."""
        loop = asyncio.create_task(self._loop(ready))
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await self._stand_down()
            with suppress(ShopAssistError, TimeoutError):
                async with asyncio.timeout(1):
                    await self.leases.release(LEASE_NAME, self._holder)

    def status(self) -> dict[str, str | bool]:
        """Whether this process leads, and how each job's last turn ended here."""
        return {"leading": self._leading, **{name: turn.last for name, turn in self._turns.items()}}

    @property
    def is_leader(self) -> bool:
        """Whether this process does the scheduled work."""
        return self._leading

    def states(self) -> dict[str, JobState]:
        """What came of each job in this process so far."""
        return self._turns

    async def run(self, job: Job, started_by: StartedBy) -> RunReport:
        """A turn of a job now, whoever leads; recorded."""
        report = await run_job(job, started_by)
        await self._record(report)
        return report

    async def _loop(self, ready: Callable[[], Awaitable[None]]) -> None:
        await ready()
        while True:
            self._leading = await self._acquire()
            if self._leading:
                self._start_due()
            else:
                await self._stand_down()
            await asyncio.sleep(POLL_SECONDS)

    async def _acquire(self) -> bool:
        """Whether the lease is ours. Whatever goes wrong with it is tried again; only the first failure is logged."""
        failure = None
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT_SECONDS):
                return await self.leases.acquire(LEASE_NAME, self._holder, LEASE_LIFETIME)
        except ShopAssistError as error:
            failure = error.code
        except Exception as error:  # noqa: BLE001 - a process that stopped looking would never lead again
            failure = type(error).__name__
        finally:
            if failure and not self._failing:
                logger.warning("lease_unavailable", error_type=failure)
            self._failing = failure is not None
        return False

    def _start_due(self) -> None:
        now = time.monotonic()
        for job in self.jobs:
            turn = self._turns.setdefault(job.name, JobState())
            if turn.due_at <= now and (turn.task is None or turn.task.done()):
                turn.due_at = now + job.every.total_seconds()
                turn.task = asyncio.create_task(self._run(job, turn), name=job.name)

    async def _run(self, job: Job, turn: JobState) -> None:
        began, outcome = time.monotonic(), "stopped"
        try:
            report = await run_job(job, StartedBy.SCHEDULER)
            turn.last = outcome = report.outcome
            turn.rows += report.result.rows
            if report.is_done:
                turn.last_success_at = time.time()
            else:
                turn.due_at = min(turn.due_at, time.monotonic() + RETRY_SECONDS)
            if report.result.has_more:
                turn.due_at = 0.0
        finally:
            turn.outcomes[outcome] += 1
            turn.seconds = time.monotonic() - began
        await self._record(report)

    async def _record(self, report: RunReport) -> None:
        """What cannot be recorded, such as that there is no database, is left out; only the first time is logged."""
        failure = None
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT_SECONDS):
                await self.runs.record(report)
        except ShopAssistError as error:
            failure = error.code
        except Exception as error:  # noqa: BLE001 - work that was done does not fail for want of a record
            failure = type(error).__name__
        if failure and not self._unrecorded:
            logger.warning("job_run_not_recorded", job=report.job, error_type=failure)
        self._unrecorded = failure is not None

    async def _stand_down(self) -> None:
        tasks = [turn.task for turn in self._turns.values() if turn.task is not None and not turn.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_job(job: Job, started_by: StartedBy) -> RunReport:
    """What came of a turn of a job; a failure is logged, and part of the report."""
    began, work = time.monotonic(), JobResult()
    try:
        work, outcome = await job.work(), DONE
    except ShopAssistError as error:
        outcome = error.code
        logger.warning("job_failed", job=job.name, error_type=error.code)
    except Exception as error:  # noqa: BLE001 - a job that fails is tried again at its next turn
        outcome = "failed"
        work = JobResult(note=type(error).__name__)
        logger.error("job_failed", job=job.name, error=type(error).__name__)
    return RunReport(job.name, outcome, work, time.monotonic() - began, started_by)
