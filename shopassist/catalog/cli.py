"""Command `shopassist catalog import`: shows the plan, the progress and the result of an import."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shopassist.catalog.importer.importer import ImportReport, import_catalog
from shopassist.catalog.importer.plan import ImportOptions, ImportPlan, plan_import
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError

console = Console(stderr=True)

FileArgument = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="CSV, JSON or JSONL, also compressed with gzip.")
]
SourceOption = Annotated[str | None, typer.Option(help="Name of the catalogue; its file's name unless given.")]
MapOption = Annotated[list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Correct a guess.")]
CurrencyOption = Annotated[str | None, typer.Option(help="ISO 4217 code of prices that name none.")]
MinorOption = Annotated[
    bool | None, typer.Option("--minor-units/--major-units", help="Whether prices are in cents (paise).")
]
LinkOption = Annotated[str | None, typer.Option(help="Link of products without one; {query} is brand and title.")]
RejectsOption = Annotated[Path | None, typer.Option(help="Where refused rows go; FILE.rejects.jsonl unless given.")]


def show_plan(
    file: Path,
    source: str | None,
    columns: list[str] | None,
    currency: str | None,
    minor: bool | None,
    link_template: str | None,
    rejects: Path | None,
) -> ImportPlan:
    """How the file will be read, which is shown. Raises `InvalidInputError`."""
    pairs = [entry.partition("=") for entry in columns or []]
    if any(not name or not column for name, _, column in pairs):
        raise InvalidInputError("--map takes FIELD=COLUMN.")
    options = ImportOptions(
        source=source,
        columns={name: column for name, _, column in pairs},
        currency=currency,
        minor=minor,
        link_template=link_template,
        rejects=rejects,
    )
    plan = plan_import(file, options)
    table = Table("field", "column", "", title=f"{file.name} as {plan.builder.source!r}")
    for line in plan.description:
        table.add_row(*line)
    console.print(table)
    return plan


async def import_with_progress(plan: ImportPlan, unit_of_work: UnitOfWork[CatalogRepositories]) -> ImportReport:
    """Import the planned file with a progress bar, and say what became of its rows."""
    bar = Progress(
        TextColumn("{task.fields[rows]:,} rows"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        task = bar.add_task("import", total=plan.file.path.stat().st_size, rows=0)
        report = await import_catalog(
            plan, unit_of_work, lambda now: bar.update(task, completed=now.bytes_read, rows=now.read)
        )
    console.print(
        f"{report.read:,} rows: {report.inserted:,} inserted, {report.updated:,} updated, "
        f"{report.unchanged:,} unchanged, {report.repeated:,} repeated, {report.rejected:,} rejected"
        + (f" (see {plan.rejects})" if report.rejected else "")
    )
    return report
