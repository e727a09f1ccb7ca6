"""`shopassist state …`: export, import and verify snapshots."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from sqlalchemy import URL

from shopassist.errors import StartupError
from shopassist.identity.caller import UserHasher
from shopassist.ops.backup.create import get_backup_dsn
from shopassist.ops.snapshot import compare, importing
from shopassist.ops.snapshot.file import ShowProgress, export_snapshot, scan_file
from shopassist.ops.snapshot.tables import TABLE_SPECS
from shopassist.ops.startup import read_settings, running_database
from shopassist.settings import Storage

app = typer.Typer(no_args_is_help=True, help="The whole state as a file (docs/state.md).")
TOTALS_HEADINGS = ("file: rows", "credits", "database: rows", "credits")
SECONDS_BETWEEN_LINES = 10.0
console = Console(stderr=True)
output = Console(soft_wrap=True, highlight=False, markup=False)

FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A snapshot: JSON lines.")]
ToArgument = Annotated[Path, typer.Argument(dir_okay=False, help="Where to write; a file of that name is replaced.")]
RejectsOption = Annotated[Path | None, typer.Option(help="Where refused rows go; FILE.rejects.jsonl unless given.")]
DiscardOption = Annotated[bool, typer.Option("--discard", help="Forget an import that has not ended, and begin anew.")]


@app.callback()
def refuse_rollout_storage() -> None:
    """Refuse during a rollout: what is in the server's memory is neither seen nor changed from here."""
    if read_settings().storage.storage is Storage.ROLLOUT:
        raise StartupError("STORAGE=rollout: users may be in the server's memory. Import before it, export after it.")


@app.command("export")
def export_(file: ToArgument) -> None:
    """Write all of it into FILE, as it is at one instant. It holds personal data: keep it as a backup is kept."""
    with _open_database() as (url, subject), _show_progress() as progress:
        rows = asyncio.run(export_snapshot(url, file, subject.fingerprint, progress.begin("rows")))
    for kind, count in rows.items():
        output.print(f"{kind}: {count:,}")


@app.command("import")
def import_(file: FileArgument, rejects: RejectsOption = None, discard: DiscardOption = False) -> None:
    """Add what is in FILE and not there yet. May be ended and given again at any time, and done again."""
    where = rejects or file.with_name(f"{file.name}.rejects.jsonl")
    with _open_database() as (url, subject), _show_progress() as progress:
        snapshot = scan_file(file, progress.begin("looking the file over"))
        report = asyncio.run(
            importing.import_snapshot(url, snapshot, subject, subject.fingerprint, where, progress, discard=discard)
        )
    if report.resumed:
        output.print("an import of this file that had not ended was gone on with")
    for kind in TABLE_SPECS:
        if count := report.imported.get(kind.name, 0):
            output.print(f"{kind.name}: {count:,} added")
    output.print(
        f"{report.rows:,} rows in the file: {sum(report.imported.values()):,} added, {report.rejected:,} refused, "
        f"{report.differing:,} there already and different"
        + _format_file_hint(where, report.rejected + report.differing)
    )


@app.command()
def verify(file: FileArgument) -> None:
    """Compare FILE with the database: counts, sums, checksums; exit code 1 when anything differs."""
    with _open_database() as (url, subject), _show_progress() as progress:
        snapshot = scan_file(file, progress.begin("looking the file over"))
        found = asyncio.run(compare.compare_snapshot(url, snapshot, subject, subject.fingerprint, progress))
    table = Table(Column("kind", no_wrap=True), *TOTALS_HEADINGS, "checksums", box=None)
    for kind in found.kinds:
        if not kind.file.rows and not kind.database.rows:
            continue
        sides = kind.file, kind.database
        figures = [figure for side in sides for figure in (f"{side.rows:,}", _format_credits(side))]
        table.add_row(kind.kind, *figures, "equal" if kind.file.checksum == kind.database.checksum else "differ")
    Console().print(table)
    for kind in found.kinds:
        if not kind.agrees:
            output.print(f"{kind.kind} differs: {', '.join(kind.differing)}")
    if found.erased:
        output.print(f"{found.erased:,} rows are of people who were erased here, and are left out")
    if found.refused:
        output.print(f"{found.refused:,} rows of the file are refused by an import: they are not in the database")
    output.print("no difference" if found.agrees else "not the same")
    if not found.agrees:
        raise typer.Exit(1)


def _format_credits(side: compare.TableTotals) -> str:
    return "" if side.credits is None else f"{side.credits:,}"


def _format_file_hint(file: Path, count: int) -> str:
    return f" (see {file})" if count else ""


@contextmanager
def _open_database() -> Iterator[tuple[URL, UserHasher]]:
    """The link to the database that runs, and who is who under its key."""
    with running_database() as settings:
        yield get_backup_dsn(settings), UserHasher(settings)


@contextmanager
def _show_progress() -> Iterator[importing.SnapshotProgress]:
    """A bar in a terminal, else a line for each step and, while it lasts, every ten seconds."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    times = TimeElapsedColumn(), TimeRemainingColumn()
    began = time.monotonic()
    with Progress(*columns, *times, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def say(words: str) -> None:
            if not console.is_terminal:
                console.print(f"{time.monotonic() - began:6.1f} s  {words}", soft_wrap=True, highlight=False)

        def said(step: str) -> None:
            bar.update(task, description=step, total=None)
            say(step)

        def begin(step: str) -> ShowProgress:
            said(step)
            spoken = time.monotonic()

            def shown(done: int, total: int) -> None:
                nonlocal spoken
                bar.update(task, completed=done, total=total)
                if time.monotonic() - spoken > SECONDS_BETWEEN_LINES:
                    spoken = time.monotonic()
                    say(f"{step}: {done / max(total, 1):.0%}")

            return shown

        yield importing.SnapshotProgress(begin, said)
