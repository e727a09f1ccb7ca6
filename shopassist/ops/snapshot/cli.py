"""`shopassist state …`: export, import and verify snapshots."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from sqlalchemy import URL

from shopassist.db.dsn import get_session_setting, require_session_dsn
from shopassist.db.migrate import require_current
from shopassist.errors import StartupError
from shopassist.identity.key_derivation import UserHasher
from shopassist.ops.snapshot.compare import SnapshotComparison, compare_snapshot
from shopassist.ops.snapshot.file import ReportProgress, export_snapshot, scan_file
from shopassist.ops.snapshot.importing import import_snapshot
from shopassist.ops.snapshot.tables import TABLE_SPECS
from shopassist.ops.startup import running_database
from shopassist.settings import Storage, read_settings
from shopassist.terminal import JsonOption, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="The whole state as a file (docs/state.md).")
TOTALS_HEADINGS = ("file: rows", "credits", "database: rows", "credits")
REPORT_INTERVAL_SECONDS = 10.0
console = Console(stderr=True)
output = Console(soft_wrap=True, highlight=False, markup=False)

FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A snapshot: JSON lines.")]
ToArgument = Annotated[Path, typer.Argument(dir_okay=False, help="Where to write; an existing file is replaced.")]
RejectsOption = Annotated[Path | None, typer.Option(help="File for refused rows; FILE.rejects.jsonl by default.")]
DiscardOption = Annotated[bool, typer.Option("--discard", help="Forget an unfinished import of another file.")]


@app.callback()
def refuse_rollout_storage() -> None:
    """Refuse during a rollout, because users may be in the memory of the server."""
    if read_settings().storage.storage is Storage.ROLLOUT:
        raise StartupError("STORAGE=rollout: users may be in the server's memory. Import before it, export after it.")


@app.command("export")
def export_(file: ToArgument, as_json: JsonOption = False) -> None:
    """Write all rows to FILE as of one instant. It holds personal data: protect it like a backup."""
    with _open_database() as (dsn, user_hasher), _show_progress() as report:
        rows = asyncio.run(export_snapshot(dsn, file, user_hasher.fingerprint, report))
    if as_json:
        print_json(rows)
        return
    for kind, count in rows.items():
        output.print(f"{kind}: {count:,}")


@app.command("import")
def import_(
    file: FileArgument, rejects: RejectsOption = None, discard: DiscardOption = False, as_json: JsonOption = False
) -> None:
    """Add the rows of FILE that are not there yet. If it is interrupted, give the same command again."""
    path = rejects or file.with_name(f"{file.name}.rejects.jsonl")
    with _open_database() as (dsn, user_hasher), _show_progress() as report:
        snapshot = scan_file(file, report)
        result = asyncio.run(import_snapshot(dsn, snapshot, user_hasher, path, report, discard=discard))
    if as_json:
        print_json(result)
        return
    if result.is_resumed:
        output.print("an import of this file that had not ended was gone on with")
    for spec in TABLE_SPECS:
        if count := result.inserted[spec.name]:
            output.print(f"{spec.name}: {count:,} added")
    hint = f" (see {path})" if result.rejected + result.differing else ""
    output.print(
        f"{result.rows:,} rows in the file: {sum(result.inserted.values()):,} added, {result.rejected:,} refused, "
        f"{result.differing:,} there already and different{hint}"
    )


@app.command()
def verify(file: FileArgument, as_json: JsonOption = False) -> None:
    """Compare FILE with the database: counts, sums, checksums; exit code 1 when anything differs."""
    with _open_database() as (dsn, user_hasher), _show_progress() as report:
        comparison = asyncio.run(compare_snapshot(dsn, scan_file(file, report), user_hasher, report))
    print_json({"is_equal": comparison.is_equal, **asdict(comparison)}) if as_json else print_comparison(comparison)
    if not comparison.is_equal:
        raise typer.Exit(1)


def print_comparison(comparison: SnapshotComparison) -> None:
    """Print the tables that have rows, and what differs."""
    table = Table(Column("kind", no_wrap=True), *TOTALS_HEADINGS, "checksums", box=None)
    for compared in comparison.tables:
        if compared.file_rows or compared.database_rows:
            numbers = compared.file_rows, compared.file_credits, compared.database_rows, compared.database_credits
            cells = ["" if number is None else f"{number:,}" for number in numbers]
            table.add_row(compared.kind, *cells, "differ" if compared.differing else "equal")
    print_table(table)
    for compared in comparison.tables:
        if compared.differing:
            output.print(f"{compared.kind} differs: {', '.join(compared.differing)}")
    if comparison.erased:
        output.print(f"{comparison.erased:,} rows are of people who were erased here, and are left out")
    if comparison.refused:
        output.print(f"{comparison.refused:,} rows of the file are refused by an import: they are not in the database")
    output.print("no difference" if comparison.is_equal else "not the same")


@contextmanager
def _open_database() -> Iterator[tuple[URL, UserHasher]]:
    """Start the database; give its DSN and the hasher of user ids."""
    with running_database() as settings:
        dsn = require_session_dsn(settings)
        asyncio.run(require_current(dsn, get_session_setting(settings)))  # before the file is read, which may be long
        yield dsn, UserHasher(settings)


@contextmanager
def _show_progress() -> Iterator[ReportProgress]:
    """Show a bar in a terminal, otherwise a line for each step and every ten seconds."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    times = TimeElapsedColumn(), TimeRemainingColumn()
    started_at = printed_at = time.monotonic()
    printed = ""
    with Progress(*columns, *times, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def report(step: str, done: int = 0, total: int = 0) -> None:
            nonlocal printed, printed_at
            bar.update(task, description=step, completed=done, total=total or None)
            now = time.monotonic()
            if not console.is_terminal and (step != printed or now - printed_at > REPORT_INTERVAL_SECONDS):
                share = f": {done / total:.0%}" if total and step == printed else ""
                console.print(f"{now - started_at:6.1f} s  {step}{share}", soft_wrap=True, highlight=False)
                printed, printed_at = step, now

        yield report
