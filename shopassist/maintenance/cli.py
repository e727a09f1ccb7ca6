"""`shopassist maintenance …`: shows scheduled jobs and runs them by hand."""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol

import typer
from rich.console import Console
from rich.table import Column, Table

from shopassist.db.row_batches import JobResult
from shopassist.errors import StartupError
from shopassist.maintenance.models import DONE, JobRecord, MaintenanceOverview, RunReport, StartedBy
from shopassist.maintenance.ports import Leases, MaintenanceRuns
from shopassist.maintenance.scheduler import LEASE_NAME, RETRY_SECONDS, Job, JobScheduler
from shopassist.ops.startup import read_settings
from shopassist.settings import Storage

app = typer.Typer(no_args_is_help=True, help="Scheduled work: what the servers clean, verify and vacuum by themselves.")
console = Console(stderr=True)

MAX_MISSED_RUNS = 2
OVERDUE_GRACE = timedelta(minutes=1)
"""A job may miss so many turns, and be so late, before that is called overdue."""

PIPE_WIDTH = 200
"""Of what a program reads, whose lines are not to be broken."""


class MaintenanceServices(Protocol):
    """What these commands take from the container."""

    def jobs(self) -> JobScheduler: ...

    def leases(self) -> Leases: ...

    def maintenance_runs(self) -> MaintenanceRuns: ...


@app.callback()
def refuse_memory_storage() -> None:
    """Refuse where all there is to clean is a server's own memory."""
    if read_settings().storage.storage is Storage.MEMORY:
        raise StartupError("STORAGE=memory: the server looks after its own memory; nothing can be run from outside.")


@app.command()
def status(context: typer.Context) -> None:
    """Show when each job last ran, what came of it, and who leads; exit code 1 when one is overdue or failing."""

    async def look(services: MaintenanceServices) -> tuple[Sequence[Job], MaintenanceOverview, str | None]:
        overview = await services.maintenance_runs().overview()
        return services.jobs().jobs, overview, await services.leases().holder(LEASE_NAME)

    jobs, overview, leader = context.obj.with_services(look)
    if is_rollout_storage():
        leader = "the server of the rollout"
    if not print_overview(jobs, overview, leader):
        raise typer.Exit(1)


@app.command()
def run(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="As `status` lists them.")] = None,
) -> None:
    """Do all jobs, or those named, now and to their end, whoever leads; exit code 1 when one fails.

    They bear being done twice at once, so a server that runs may stay. `vacuum` uses DATABASE_MIGRATION_URL where it is
    set: on PostgreSQL before 17 the app's own role may not vacuum.
    """
    if is_rollout_storage():
        raise StartupError("STORAGE=rollout: jobs reach into the server's memory, and are left to it.")

    async def work(services: MaintenanceServices) -> bool:
        jobs = services.jobs()
        reports = [await run_to_end(jobs, job) for job in select_jobs(jobs.jobs, names or [])]
        return all(report.is_done for report in reports)

    if not context.obj.with_services(work):
        raise typer.Exit(1)


def is_rollout_storage() -> bool:
    """Whether state is also in the memory of a server."""
    return read_settings().storage.storage is Storage.ROLLOUT


def create_output_console() -> Console:
    """Where results go."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, soft_wrap=True, highlight=False, markup=False)


def select_jobs(jobs: Sequence[Job], names: Sequence[str]) -> list[Job]:
    """The jobs of these names, all for none. Raises `StartupError` for a name that none has."""
    by_name = {job.name: job for job in jobs}
    if unknown := [name for name in names if name not in by_name]:
        raise StartupError(f"There is no job {unknown[0]}: there are {', '.join(by_name)}.")
    return [by_name[name] for name in dict.fromkeys(names)] or list(jobs)


async def run_to_end(jobs: JobScheduler, job: Job) -> RunReport:
    """Do a job turn after turn until nothing is left, and say what came of it; all of them together."""
    did, seconds = 0, 0.0
    with console.status(job.name) as shown:
        while True:
            report = await jobs.run(job, StartedBy.OPERATOR)
            did, seconds = did + report.result.rows, seconds + report.seconds
            shown.update(f"{job.name}: {did:,}")
            if not report.result.has_more:
                break
    note = f"  ({report.result.note})" if report.result.note else ""
    create_output_console().print(f"{job.name}: {report.outcome}, {did:,} in {seconds:.2f} s{note}")
    return RunReport(job.name, report.outcome, JobResult(did, note=report.result.note), seconds, StartedBy.OPERATOR)


def print_overview(jobs: Sequence[Job], overview: MaintenanceOverview, leader: str | None) -> bool:
    """Print how the jobs stand; whether all is well."""
    table = Table(
        *("", Column("job", no_wrap=True), "last run", "result"),
        *(Column("rows", justify="right"), Column("seconds", justify="right"), "every", "next in", "note"),
        box=None,
        pad_edge=False,
    )
    wrong = 0
    for job in jobs:
        record = overview.jobs.get(job.name)
        complaint = find_problem(job, record, overview.now)
        wrong += complaint is not None
        table.add_row("!!" if complaint else "ok", job.name, *build_row_cells(job, record, complaint, overview.now))
    output = create_output_console()
    output.print(table, soft_wrap=False)
    output.print(f"leader: {leader}" if leader else "leader: none; a server that runs would lead")
    output.print(f"{len(jobs)} jobs, {wrong} to look at" if wrong else f"{len(jobs)} jobs, all well")
    return not wrong


def build_row_cells(job: Job, record: JobRecord | None, complaint: str | None, now: datetime) -> Iterator[str]:
    """What a job's line says behind its name."""
    if record is None:
        yield from ("never", complaint or "", "", "", format_duration(job.every), "", "")
        return
    newest = record.last_run
    by = "" if newest.started_by == StartedBy.SCHEDULER else f" by {newest.started_by}"
    yield f"{newest.finished_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC{by}"
    yield complaint or (newest.outcome if newest.repeats == 1 else f"{newest.outcome}, {newest.repeats:,} times")
    yield from (f"{newest.did:,}", f"{newest.seconds:.2f}", format_duration(job.every))
    wait = job.every if newest.outcome == DONE else min(job.every, timedelta(seconds=RETRY_SECONDS))
    yield format_duration(max(timedelta(0), newest.finished_at + wait - now))
    yield newest.note or ""


def find_problem(job: Job, record: JobRecord | None, now: datetime) -> str | None:
    """What is wrong with a job: its last run failed, or it missed turns."""
    if record is None:
        return "overdue: it never ran"
    if record.last_run.outcome != DONE:
        return f"failing: {record.last_run.outcome}, {record.last_run.repeats:,} times"
    if now - record.last_run.finished_at > MAX_MISSED_RUNS * job.every + OVERDUE_GRACE:
        return "overdue"
    return None


def format_duration(time: timedelta) -> str:
    """A length of time in its largest whole unit."""
    seconds = round(time.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
