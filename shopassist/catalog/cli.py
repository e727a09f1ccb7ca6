"""`shopassist catalog import`: shows how a file will be read, the progress and the result."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from shopassist.catalog.importer.importer import (
    ImportOptions,
    ImportPlan,
    ImportReport,
    check_plan,
    find_reason_to_refuse,
    import_catalog,
    plan_import,
)
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError
from shopassist.terminal import JsonOption, create_console, print_json

app = typer.Typer(no_args_is_help=True, help="The catalogue of products.")


@app.command("import")
def import_(  # noqa: PLR0913, PLR0917 - the options of the command
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(help="CSV, XLSX, JSON, JSONL or XML, also in .gz, .zip or .tar.gz; - is standard input."),
    ],
    source: Annotated[str | None, typer.Option(help="Name of the catalogue; its file's name unless given.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--map", metavar="FIELD=COLUMN", help="Correct a guess; FIELD=- for none.")
    ] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217 code of prices that name none.")] = None,
    minor_units: Annotated[
        bool | None, typer.Option("--minor-units/--major-units", help="Whether prices are in cents (paise).")
    ] = None,
    link_template: Annotated[
        str | None,
        typer.Option(
            help="Link of products without one; {query} is brand and title, {handle} the column of this name."
        ),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where refused rows go; FILE.rejects.jsonl unless given.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the file; told by its content unless given.")
    ] = None,
    link_base: Annotated[str | None, typer.Option(help="Address that relative links are below.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show how the file is read, and change nothing.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Import even without prices, or if most rows cannot be used.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add the products of FILE, or bring them up to date by their source and id."""
    pairs = [entry.partition("=") for entry in columns or []]
    if any(not name or not column for name, _, column in pairs):
        raise InvalidInputError("--map takes FIELD=COLUMN.")
    mapping = {name: column for name, _, column in pairs}
    options = ImportOptions(source, mapping, currency, minor_units, link_template, rejects, encoding, link_base)
    plan = plan_import(file, options)
    if dry_run:
        _show_report(plan, _check(plan, accept=accept), as_json, is_dry_run=True)
    else:
        # The database first: a missing one is told before the file is checked, which may take long.
        context.obj.with_prepared_database(lambda unit_of_work: _check_and_import(plan, unit_of_work, accept, as_json))


def _check(plan: ImportPlan, *, accept: bool) -> ImportReport:
    """Show how the file is read, and read it once. Raise `InvalidInputError` if its import would be of little use."""
    _show_plan(plan)
    report, reasons = check_plan(plan)
    refusal = None if accept else find_reason_to_refuse(plan, report)
    if refusal:
        raise InvalidInputError(" ".join([refusal, "Nothing was written; --accept imports it as it is.", *reasons]))
    return report


def _show_plan(plan: ImportPlan) -> None:
    table = Table("field", "column", "", title=f"{plan.file.name} as {plan.builder.source!r}")
    for line in plan.description:
        table.add_row(*line)
    create_console(stderr=True).print(table, soft_wrap=False)


def _show_report(plan: ImportPlan, report: ImportReport, as_json: bool, *, is_dry_run: bool = False) -> None:
    rejects = str(plan.rejects) if report.rejected and not is_dry_run else None
    if as_json:
        print_json({"source": plan.builder.source, "rejects": rejects, "dry_run": is_dry_run, **asdict(report)})
    taken = report.read - report.repeated - report.rejected - report.left_out
    done = (
        f"{taken:,} would be taken, "
        if is_dry_run
        else f"{report.inserted:,} inserted, {report.updated:,} updated, {report.unchanged:,} unchanged, "
    )
    text = f"{report.read:,} rows: {done}{report.repeated:,} repeated, {report.rejected:,} rejected"
    text += f" (see {rejects})" if rejects else ""
    text += f", {report.left_out:,} left out as not for sale" if report.left_out else ""
    text += f"; {report.without_price:,} without a price" if report.without_price else ""
    text += "".join(f"; {count:,} unusable values of {name} left out" for name, count in report.dropped.items())
    create_console(stderr=True).print(text)


async def _check_and_import(
    plan: ImportPlan, unit_of_work: UnitOfWork[CatalogRepositories], accept: bool, as_json: bool
) -> None:
    _check(plan, accept=accept)
    console = create_console(stderr=True)
    bar = Progress(
        TextColumn("{task.fields[rows]:,} rows"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console
    )
    with bar:
        task = bar.add_task("import", total=plan.file.size, rows=0)
        report = await import_catalog(
            plan, unit_of_work, lambda now: bar.update(task, completed=now.bytes_read, rows=now.read)
        )
    _show_report(plan, report, as_json)
