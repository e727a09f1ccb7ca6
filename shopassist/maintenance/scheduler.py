"""Lists the scheduled jobs, and runs them in one process at a time: the holder of the lease."""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import uuid4

import structlog

from shopassist.cache.service import QueryCacheService
from shopassist.credits.ports import CreditLedger, IdempotencyStore
from shopassist.credits.service import LedgerCompaction, LedgerReconciliationService
from shopassist.db.failures import describe_database_error
from shopassist.db.ports import JOB_TIME_LIMIT_SECONDS, JobResult, run_in_batches
from shopassist.errors import ShopAssistError
from shopassist.maintenance.models import DONE, Leases, MaintenanceRuns, RunReport, StartedBy
from shopassist.privacy.service import ErasureService

logger = structlog.get_logger(__name__)

LEASE_NAME = "scheduler"
LEASE_LIFETIME = timedelta(seconds=7)
POLL_SECONDS = 1.5
"""How often the lease is extended and due jobs are started. Another process follows a dead leader within 8.5 s."""

RETRY_SECONDS = 300.0
"""A failed job is tried again after this many seconds, or earlier if it is due earlier."""

STORAGE_TIMEOUT_SECONDS = 2.0
"""Time limit of a call for the lease or a record. With a poll it is well within the lease's lifetime."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work to run `every` interval. Two processes may run it at once, and it may be stopped at any point."""

    name: str
    every: timedelta
    work: Callable[[], Awaitable[JobResult]]


def build_jobs(
    ledger: CreditLedger,
    replays: IdempotencyStore,
    runs: MaintenanceRuns,
    vacuum: Callable[[], Awaitable[JobResult]],
    cache: QueryCacheService,
    erasures: ErasureService,
    compaction: LedgerCompaction,
    reconciliation: LedgerReconciliationService,
) -> list[Job]:
    """Return all jobs in the order in which `shopassist maintenance status` lists them.

    Two processes may run the same job at once, and each job may be stopped at any point.
    """
    seconds, minutes, hours, days = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
    return [
        Job("void_expired_holds", 5 * seconds, partial(run_in_batches, ledger.void_expired)),
        Job("finish_erasures", 10 * seconds, partial(erasures.finish_pending, JOB_TIME_LIMIT_SECONDS)),
        Job("reset_due_credits", minutes, partial(run_in_batches, ledger.reset_due_accounts)),
        Job("forget_idempotent_answers", 5 * minutes, partial(run_in_batches, replays.delete_expired)),
        Job("clear_expired_cache", 5 * minutes, partial(run_in_batches, cache.clear_expired_batch)),
        Job("forget_guest_networks", hours, partial(run_in_batches, ledger.delete_old_guest_counts)),
        Job("forget_erased", hours, partial(erasures.delete_expired, JOB_TIME_LIMIT_SECONDS)),
        Job("forget_runs", hours, partial(run_in_batches, runs.delete_old)),
        Job("vacuum", hours, vacuum),
        Job("fold_old_transactions", days, partial(compaction.compact_within, JOB_TIME_LIMIT_SECONDS)),
        Job("verify_ledger", days, partial(reconciliation.verify_within, JOB_TIME_LIMIT_SECONDS)),
    ]


@dataclass(slots=True)
class JobState:
    """What a job did in this process.

    `due_at` is by the monotonic clock, `last_success_at` in seconds since the epoch (0: never). `outcomes` counts runs,
    `rows` sums over all runs, and `seconds` is the duration of the last run.
    """

    due_at: float = 0.0
    task: asyncio.Task[None] | None = None
    last_outcome: str = "not run here"
    outcomes: Counter[str] = field(default_factory=Counter)
    last_success_at: float = 0.0
    seconds: float = 0.0
    rows: int = 0


@dataclass(slots=True)
class JobScheduler:
    """Runs jobs in the background while this process holds the lease, and records each run."""

    leases: Leases
    jobs: Sequence[Job]
    runs: MaintenanceRuns
    is_leader: bool = False
    states: dict[str, JobState] = field(default_factory=dict)
    _holder: str = field(default_factory=lambda: f"{socket.gethostname()[:40]}:{os.getpid()}:{uuid4().hex[:12]}")
    _failing: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def run_while(self, wait_until_ready: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
        """Run jobs for the length of the block, once `wait_until_ready` has returned; then release the lease."""
        loop = asyncio.create_task(self._loop(wait_until_ready))
        try:
            yield
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            await self._cancel_jobs()
            with suppress(ShopAssistError, TimeoutError):
                async with asyncio.timeout(1):
                    await self.leases.release(LEASE_NAME, self._holder)

    def status(self) -> dict[str, str | bool]:
        """Return whether this process leads, and the last outcome of each job in it."""
        return {"leading": self.is_leader, **{name: state.last_outcome for name, state in self.states.items()}}

    async def run(self, job: Job, started_by: StartedBy) -> RunReport:
        """Run a job once, with or without the lease, and record the run."""
        report = await run_job(job, started_by)
        await self._record(report)
        return report

    async def _loop(self, wait_until_ready: Callable[[], Awaitable[object]]) -> None:
        await wait_until_ready()
        while True:
            acquire = partial(self.leases.acquire, LEASE_NAME, self._holder, LEASE_LIFETIME)
            self.is_leader = bool(await self._try("lease_unavailable", acquire))
            if self.is_leader:
                self._start_due()
            else:
                await self._cancel_jobs()
            await asyncio.sleep(POLL_SECONDS)

    async def _record(self, report: RunReport) -> None:
        """Record a run. A run that cannot be recorded, such as while the database is down, still counts as done."""
        await self._try("job_run_not_recorded", partial(self.runs.record, report), job=report.job)

    async def _try(self, event: str, call: Callable[[], Awaitable[bool | None]], job: str | None = None) -> bool | None:
        """Call storage; return None when that fails. Only the first of several failures in a row is logged."""
        try:
            async with asyncio.timeout(STORAGE_TIMEOUT_SECONDS):
                result = await call()
        except Exception as error:  # noqa: BLE001 - the scheduler must go on: it calls again later
            if event not in self._failing:
                code = error.code if isinstance(error, ShopAssistError) else type(error).__name__
                logger.warning(event, error_type=code, job=job)
            self._failing.add(event)
            return None
        self._failing.discard(event)
        return result

    def _start_due(self) -> None:
        now = time.monotonic()
        for job in self.jobs:
            state = self.states.setdefault(job.name, JobState())
            if state.due_at <= now and (state.task is None or state.task.done()):
                state.due_at = now + job.every.total_seconds()
                state.task = asyncio.create_task(self._run(job, state), name=job.name)

    async def _run(self, job: Job, state: JobState) -> None:
        began, outcome = time.monotonic(), "stopped"
        try:
            report = await run_job(job, StartedBy.SCHEDULER)
            state.last_outcome = outcome = report.outcome
            state.rows += report.result.rows
            if report.outcome == DONE:
                state.last_success_at = time.time()
            else:
                state.due_at = min(state.due_at, time.monotonic() + RETRY_SECONDS)
            if report.result.has_more:
                state.due_at = 0.0
        finally:
            state.outcomes[outcome] += 1
            state.seconds = time.monotonic() - began
        await self._record(report)

    async def _cancel_jobs(self) -> None:
        tasks = [state.task for state in self.states.values() if state.task is not None and not state.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_job(job: Job, started_by: StartedBy) -> RunReport:
    """Run a job once. A failure is logged and becomes the outcome of the report."""
    began, result = time.monotonic(), JobResult()
    try:
        result, outcome = await job.work(), DONE
    except ShopAssistError as error:
        outcome = error.code
        logger.warning("job_failed", job=job.name, error_type=error.code)
    except Exception as error:  # noqa: BLE001 - a failed job is tried again
        outcome = "failed"
        result = JobResult(note=describe_database_error(error) or type(error).__name__)
        logger.error("job_failed", job=job.name, error=type(error).__name__)
    return RunReport(job.name, outcome, result, time.monotonic() - began, started_by)
