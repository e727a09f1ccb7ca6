"""`shopassist credits verify`: recomputes every balance and lists drift."""

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from shopassist.credits.models import Drift
from shopassist.credits.reconciliation import LedgerReconciliationService

console = Console(stderr=True)
output = Console(soft_wrap=True, highlight=False, markup=False)


async def verify_ledger(audit: LedgerReconciliationService) -> bool:
    """Whether no balance has drifted; each that has is shown, and how far the work is."""
    accounts, drifts = 0, 0
    columns = SpinnerColumn(), TextColumn("{task.completed:,} accounts"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("verify", total=None)
        async for page in audit.pages():
            accounts += page.accounts
            drifts += len(page.drifts)
            for drift in page.drifts:
                print_drift(drift)
            bar.update(task, completed=accounts)
    output.print(f"{accounts:,} accounts, {drifts:,} drifts" if drifts else f"{accounts:,} accounts, no drift")
    return not drifts


def print_drift(drift: Drift) -> None:
    """One line; the user id quoted, since it is free text."""
    output.print(f"{drift.user_id!r}: {drift.what.value}: expected {drift.expected}, found {drift.found}")
