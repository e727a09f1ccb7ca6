"""`shopassist catalog import`: shows how a file will be read, the progress and the result."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shopassist.catalog.importer.importer import ImportOptions, ImportPlan, import_catalog, plan_import
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError
from shopassist.terminal import JsonOption, create_console, print_json

app = typer.Typer(no_args_is_help=True, help="The catalogue of products.")


@app.command("import")
def import_(  # noqa: PLR0913, PLR0917 - the options of the command
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV, JSON or JSONL, also compressed with gzip.")
    ],
    source: Annotated[str | None, typer.Option(help="Name of the catalogue; its file's name unless given.")] = None,
    columns: Annotated[list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Correct a guess.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code of prices that name none.")] = None,
    minor_units: Annotated[
        bool | None, typer.Option("--minor-units/--major-units", help="Whether prices are in cents (paise).")
    ] = None,
    link_template: Annotated[
        str | None, typer.Option(help="Link of products without one; {query} is brand and title.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where refused rows go; FILE.rejects.jsonl unless given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add the products of FILE, or bring them up to date by their source and id."""
    pairs = [entry.partition("=") for entry in columns or []]
    if any(not name or not column for name, _, column in pairs):
        raise InvalidInputError("--map takes FIELD=COLUMN.")
    mapping = {name: column for name, _, column in pairs}
    plan = plan_import(file, ImportOptions(source, mapping, currency, minor_units, link_template, rejects))
    context.obj.with_prepared_database(lambda unit_of_work: _import_with_progress(plan, unit_of_work, as_json))


async def _import_with_progress(plan: ImportPlan, unit_of_work: UnitOfWork[CatalogRepositories], as_json: bool) -> None:
    console = create_console(stderr=True)
    table = Table("field", "column", "", title=f"{plan.file.path.name} as {plan.builder.source!r}")
    for line in plan.description:
        table.add_row(*line)
    console.print(table, soft_wrap=False)
    bar = Progress(
        TextColumn("{task.fields[rows]:,} rows"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        task = bar.add_task("import", total=plan.file.path.stat().st_size, rows=0)
        report = await import_catalog(
            plan, unit_of_work, lambda now: bar.update(task, completed=now.bytes_read, rows=now.read)
        )
    if as_json:
        print_json(
            {"source": plan.builder.source, "rejects": str(plan.rejects) if report.rejected else None, **asdict(report)}
        )
    console.print(
        f"{report.read:,} rows: {report.inserted:,} inserted, {report.updated:,} updated, "
        f"{report.unchanged:,} unchanged, {report.repeated:,} repeated, {report.rejected:,} rejected"
        + (f" (see {plan.rejects})" if report.rejected else "")
    )
