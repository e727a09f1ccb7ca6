"""`shopassist credits …`: shows an account, recomputes every balance and lists drift."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from shopassist.credits.models import CreditStatus, CreditTransaction, Drift, UserCredits
from shopassist.credits.ports import CreditRepositories
from shopassist.errors import NotFoundError
from shopassist.terminal import Columns, JsonOption, escape_controls, format_instant, print_json, print_rows
from shopassist.text import validate_user_id

app = typer.Typer(no_args_is_help=True, help="Credit accounts and their ledger.")
output = Console(soft_wrap=True, highlight=False, markup=False)
HISTORY_COLUMNS: Columns = (
    (Column("id", justify="right"), lambda row: str(row.id)),
    ("time", lambda row: format_instant(row.timestamp)),
    ("type", lambda row: row.transaction_type),
    (Column("amount", justify="right"), lambda row: f"{row.amount:+,}"),
    (Column("balance after", justify="right"), lambda row: f"{row.balance_after:,}"),
    ("description", lambda row: row.description or ""),
)


@app.command()
def show(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="The user's id: a subject, or a guest's session id.")],
    limit: Annotated[int, typer.Option(min=1, help="How many transactions at most, the newest first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Show the balance of USER and the history of credits. It changes nothing: a reset that is due stays due."""
    validate_user_id(user)

    async def read(work: CreditRepositories) -> tuple[UserCredits | None, list[CreditTransaction]]:
        return await work.credits.get_user_credits(user), await work.credits.get_user_transactions(user, limit)

    async def read_account(services: Any) -> tuple[UserCredits, CreditStatus, list[CreditTransaction]]:
        account, history = await services.unit_of_work().run(read, repeatable=True)
        if account is None:
            raise NotFoundError(f"There is no account of {user!r}.")
        return account, services.credit_service().build_status(account), history

    account, status, history = context.obj.with_services(read_account)
    if as_json:
        held = {"user_id": user, "held_credits": account.held_credits}
        print_json({**held, **status.model_dump(), "transactions": history})
        return
    kind = "guest" if status.next_reset_time is None else f"next reset {format_instant(status.next_reset_time)}"
    output.print(
        f"{escape_controls(user)}: {status.available_credits:,} of {status.max_credits:,} credits, "
        f"{account.held_credits:,} held, {kind}"
    )
    print_rows(history, HISTORY_COLUMNS, as_json=False)


@app.command()
def verify(context: typer.Context, as_json: JsonOption = False) -> None:
    """Recompute every balance from the ledger and list what has drifted; exit code 1 when something has."""

    async def work(services: Any) -> int:
        accounts, drifts = 0, list[Drift]()
        columns = SpinnerColumn(), TextColumn("{task.completed:,} accounts"), TimeElapsedColumn()
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("verify", total=None)
            async for page in services.ledger_reconciliation().iterate_pages():
                accounts += page.accounts
                drifts += page.drifts
                for one in () if as_json else page.drifts:
                    # The user id is free text, so it is quoted.
                    output.print(f"{one.user_id!r}: {one.kind.value}: expected {one.expected}, found {one.found}")
                progress.update(task, completed=accounts)
        if as_json:
            print_json({"accounts": accounts, "drifts": drifts})
        else:
            output.print(
                f"{accounts:,} accounts, {len(drifts):,} drifts" if drifts else f"{accounts:,} accounts, no drift"
            )
        return len(drifts)

    if context.obj.with_services(work):
        raise typer.Exit(1)
