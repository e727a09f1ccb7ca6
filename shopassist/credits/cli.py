"""`shopassist credits …`: recomputes every balance and lists drift."""

from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

app = typer.Typer(no_args_is_help=True, help="Credit accounts and their ledger.")
output = Console(soft_wrap=True, highlight=False, markup=False)


@app.command()
def verify(context: typer.Context) -> None:
    """Recompute every balance from the ledger and list what has drifted; exit code 1 when something has."""

    async def work(services: Any) -> int:
        accounts, drifts = 0, 0
        columns = SpinnerColumn(), TextColumn("{task.completed:,} accounts"), TimeElapsedColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("verify", total=None)
            async for page in services.ledger_audit().iterate_pages():
                accounts += page.accounts
                drifts += len(page.drifts)
                for one in page.drifts:
                    # The user id is free text, so it is quoted.
                    output.print(f"{one.user_id!r}: {one.kind.value}: expected {one.expected}, found {one.found}")
                progress.update(task, completed=accounts)
        output.print(f"{accounts:,} accounts, {drifts:,} drifts" if drifts else f"{accounts:,} accounts, no drift")
        return drifts

    if context.obj.with_services(work):
        raise typer.Exit(1)
