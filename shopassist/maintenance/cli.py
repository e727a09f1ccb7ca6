"""`shopassist maintenance …`: shows scheduled jobs and runs them by hand."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from shopassist.errors import StartupError
from shopassist.maintenance.models import DONE, MaintenanceOverview, MaintenanceRun, StartedBy
from shopassist.maintenance.scheduler import LEASE_NAME, RETRY_SECONDS, Job, JobScheduler
from shopassist.settings import Storage, read_settings
from shopassist.terminal import JsonOption, create_console, format_instant, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Scheduled work: what the servers clean, verify and vacuum by themselves.")
console = Console(stderr=True)

MAX_MISSED_RUNS = 2
OVERDUE_GRACE = timedelta(minutes=1)
"""A job is overdue when it missed `MAX_MISSED_RUNS` runs and this grace has passed too."""


@app.callback()
def refuse_memory_storage() -> None:
    """Refuse where all there is to clean is a server's own memory."""
    if read_settings().storage.storage is Storage.MEMORY:
        raise StartupError("STORAGE=memory: the server looks after its own memory; nothing can be run from outside.")


@app.command()
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show when each job last ran, what came of it, and who leads; exit code 1 when one is overdue or failing."""

    async def read(services: Any) -> tuple[Sequence[Job], MaintenanceOverview, str | None]:
        overview = await services.maintenance_runs().overview()
        return services.jobs().jobs, overview, await services.leases().holder(LEASE_NAME)

    jobs, overview, leader = context.obj.with_services(read)
    if read_settings().storage.storage is Storage.ROLLOUT:
        leader = "the server of the rollout"
    if not print_overview(jobs, overview, leader, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def run(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="As `status` lists them.")] = None,
) -> None:
    """Run all jobs, or those named, to their end; exit code 1 when one fails.

    Jobs may run twice at once, so servers may keep running. `vacuum` uses DATABASE_MIGRATION_URL where it is
    set: on PostgreSQL before 17 the app's own role may not vacuum.
    """
    if read_settings().storage.storage is Storage.ROLLOUT:
        raise StartupError("STORAGE=rollout: jobs reach into the server's memory, and are left to it.")

    async def work(services: Any) -> bool:
        scheduler: JobScheduler = services.jobs()
        return all([await run_to_end(scheduler, job) for job in select_jobs(scheduler.jobs, names or [])])

    if not context.obj.with_services(work, like_a_server=True):
        raise typer.Exit(1)


def select_jobs(jobs: Sequence[Job], names: Sequence[str]) -> list[Job]:
    """Return the jobs with these names, or all jobs if there are no names. Raises `StartupError` for an unknown one."""
    by_name = {job.name: job for job in jobs}
    if unknown := [name for name in names if name not in by_name]:
        raise StartupError(f"There is no job {unknown[0]}: there are {', '.join(by_name)}.")
    return [by_name[name] for name in dict.fromkeys(names)] or list(jobs)


async def run_to_end(scheduler: JobScheduler, job: Job) -> bool:
    """Run a job until it has nothing left and print the outcome. Return whether it succeeded."""
    rows, seconds, has_more = 0, 0.0, True
    with console.status(job.name) as progress:
        while has_more:
            report = await scheduler.run(job, StartedBy.OPERATOR)
            rows, seconds, has_more = rows + report.result.rows, seconds + report.seconds, report.result.has_more
            progress.update(f"{job.name}: {rows:,}")
    note = f"  ({report.result.note})" if report.result.note else ""
    create_console().print(f"{job.name}: {report.outcome}, {rows:,} in {seconds:.2f} s{note}")
    return report.outcome == DONE


def print_overview(
    jobs: Sequence[Job], overview: MaintenanceOverview, leader: str | None, *, as_json: bool = False
) -> bool:
    """Print all jobs. Return whether none of them is overdue or failing."""
    runs = {job.name: overview.jobs[job.name].last_run if job.name in overview.jobs else None for job in jobs}
    found = {job.name: find_problem(job, runs[job.name], overview.now) for job in jobs}
    if not any(runs.values()):  # no server has run on this database yet
        found = dict.fromkeys(runs)
    if as_json:
        rows = [
            {"job": job.name, "every_seconds": job.every, "problem": found[job.name], "last_run": runs[job.name]}
            for job in jobs
        ]
        print_json({"leader": leader, "jobs": rows})
        return not any(found.values())
    numbers = Column("rows", justify="right"), Column("seconds", justify="right")
    columns = "", Column("job", no_wrap=True), "last run", "result", *numbers, "every", "next in", "note"
    table = Table(*columns, box=None, pad_edge=False)
    problems = 0
    for job in jobs:
        run, problem = runs[job.name], found[job.name]
        problems += problem is not None
        mark = "!!" if problem else "ok"
        if run is None:
            table.add_row(mark, job.name, "never", problem or "never ran", "", "", format_duration(job.every))
            continue
        by = "" if run.started_by == StartedBy.SCHEDULER else f" by {run.started_by}"
        result = run.outcome if run.repeats == 1 else f"{run.outcome}, {run.repeats:,} times"
        wait = job.every if run.outcome == DONE else min(job.every, timedelta(seconds=RETRY_SECONDS))
        next_in = max(timedelta(0), run.finished_at + wait - overview.now)
        last_run = f"{format_instant(run.finished_at)}{by}"
        figures = f"{run.did:,}", f"{run.seconds:.2f}", format_duration(job.every), format_duration(next_in)
        table.add_row(mark, job.name, last_run, problem or result, *figures, run.note)
    print_table(table)
    output = create_console()
    output.print(f"leader: {leader or 'none; a server that runs would lead'}")
    verdict = f"{problems} to look at" if problems else "all well"
    output.print(f"{len(jobs)} jobs, {verdict}")
    return not problems


def find_problem(job: Job, run: MaintenanceRun | None, now: datetime) -> str | None:
    """Return why a job needs attention: it never ran, its last run failed, or it is overdue."""
    if run is None:
        return "overdue: it never ran"
    if run.outcome != DONE:
        return f"failing: {run.outcome}, {run.repeats:,} times"
    return "overdue" if now - run.finished_at > MAX_MISSED_RUNS * job.every + OVERDUE_GRACE else None


def format_duration(duration: timedelta) -> str:
    """Return a duration in its largest whole unit."""
    seconds = round(duration.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
