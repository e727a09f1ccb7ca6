"""`shopassist credits …`: recomputes every balance and lists drift."""

from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shopassist.credits.service import LedgerReconciliationService

app = typer.Typer(no_args_is_help=True, help="Credit accounts and their ledger.")
output = Console(soft_wrap=True, highlight=False, markup=False)


@app.command()
def verify(context: typer.Context) -> None:
    """Recompute every balance from the ledger and list what has drifted; exit code 1 when something has."""

    async def work(services: Any) -> bool:
        return await verify_ledger(services.ledger_audit())

    if not context.obj.with_services(work):
        raise typer.Exit(1)


async def verify_ledger(reconciliation: LedgerReconciliationService) -> bool:
    """Print every drift and the totals, with a progress display. Return whether there is no drift."""
    accounts, drifts = 0, 0
    columns = SpinnerColumn(), TextColumn("{task.completed:,} accounts"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verify", total=None)
        async for page in reconciliation.iterate_pages():
            accounts += page.accounts
            drifts += len(page.drifts)
            for drift in page.drifts:
                # The user id is free text, so it is quoted.
                output.print(f"{drift.user_id!r}: {drift.kind.value}: expected {drift.expected}, found {drift.found}")
            progress.update(task, completed=accounts)
    output.print(f"{accounts:,} accounts, {drifts:,} drifts" if drifts else f"{accounts:,} accounts, no drift")
    return not drifts
