"""What commands share: tables and JSON on standard output, and questions before something is lost."""

import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Column, Table

from shopassist.errors import InvalidInputError

PIPE_WIDTH = 10_000
"""Width of a pipe or file, in which no table is cut or wrapped."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

Columns = Sequence[tuple[str | Column, Callable[[Any], str]]]
"""Headings, and for each the function that formats the cell of a row."""


def create_console(*, stderr: bool = False) -> Console:
    """Return a console that wraps tables only in a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, soft_wrap=True, highlight=False, markup=False)


def print_table(table: Table) -> None:
    """Print a table."""
    create_console().print(table, soft_wrap=False)


def print_json(content: Any) -> None:
    """Print dataclasses, models and containers of them as JSON in ASCII, which every output can print."""
    typer.echo(json.dumps(to_jsonable_python(content, timedelta_mode="float"), indent=2))


def print_rows(rows: Sequence[Any], columns: Columns, *, as_json: bool) -> None:
    """Print rows as a table or, with all their fields, as JSON."""
    if as_json:
        print_json(rows)
        return
    table = Table(*(heading for heading, _ in columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape_controls(format_cell(row)) for _, format_cell in columns))
    print_table(table)


def escape_controls(text: str) -> str:
    """Escape control characters: ids and descriptions are free text, and a terminal obeys some of them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def format_instant(instant: datetime) -> str:
    """Format an instant in UTC."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def confirm_loss(loss: str, *, yes: bool) -> None:
    """Say what will be lost and ask whether to go on, unless `yes`. Raises `Abort`.

    Raises `InvalidInputError` without a terminal, where only `--yes` can answer.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidInputError(f"{loss} Give --yes to do it without a terminal.")
    typer.confirm(f"{loss} Go on?", abort=True, err=True)
