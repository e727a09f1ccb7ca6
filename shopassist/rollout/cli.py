"""`shopassist rollout …`: shows and changes the rollout of a running server."""

from datetime import timedelta
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError
from rich.table import Table

from shopassist.audit.storages import get_operator_name
from shopassist.errors import StartupError
from shopassist.identity.tokens import DevelopmentIssuer
from shopassist.rollout.models import RolloutStatus
from shopassist.settings import AdministrationSettings, Settings, http_address, read_settings
from shopassist.settings.group import load_settings
from shopassist.terminal import JsonOption, create_console, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="Moving users between memory and PostgreSQL, on the server that runs.")

TIMEOUT_SECONDS = 30.0
LOOPBACK_BY_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address that is replaced, not bound
ReasonOption = Annotated[str | None, typer.Option(help="Kept in the audit of administrators.")]


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show where users are, differences and errors; exit code 1 when something needs looking at."""
    _print_and_check(_call_server("GET", ""), as_json)


@app.command("set")
def set_(
    percent: Annotated[float, typer.Argument(min=0, max=100, help="Share of users, in PostgreSQL.")],
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send PERCENT of users to PostgreSQL, with their state, and all others to memory."""
    _print_status(_call_server("PUT", "", reason, {"percent": percent}), as_json)


@app.command()
def back(reason: ReasonOption = None, as_json: JsonOption = False) -> None:
    """Send everybody back to memory at once, even with PostgreSQL down; exit code 1 when a change may be missing."""
    _print_and_check(_call_server("POST", "/back", reason), as_json)


def _call_server(
    method: str, path: str, reason: str | None = None, body: dict[str, Any] | None = None
) -> RolloutStatus:
    """Call the server and return the status. Raises `StartupError` when there is none."""
    settings, how = read_settings(), load_settings(AdministrationSettings)
    host = LOOPBACK_BY_WILDCARD.get(settings.server.host, settings.server.host)
    url = how.url or http_address(host, settings.server.port)
    token = how.token.get_secret_value() if how.token else _mint_token(settings)
    try:
        response = httpx.request(
            method,
            f"{url.rstrip('/')}/api/admin/rollout{path}",
            headers={"Authorization": f"Bearer {token}"},
            params={} if reason is None else {"reason": reason},
            json=body,
            timeout=TIMEOUT_SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise StartupError(f"The server at {url} does not answer ({type(error).__name__}): is it running?") from None
    if response.status_code in {401, 403}:
        raise StartupError("The server refuses the token: set ADMIN_TOKEN to an administrator's access token.")
    try:
        if response.is_success:
            return RolloutStatus.model_validate_json(response.content)
        raise StartupError(str(response.json()["detail"]))
    except (ValidationError, ValueError, KeyError, TypeError):
        raise StartupError(f"The server at {url} answers {response.status_code}: is it a shopassist?") from None


def _mint_token(settings: Settings) -> str:
    """Return a token that a server on the embedded database accepts."""
    if settings.database.database_url is not None or settings.server.production:
        raise StartupError("ADMIN_TOKEN is not set: the server believes an administrator's access token alone.")
    issuer = DevelopmentIssuer(settings)
    return issuer.mint(get_operator_name(), [settings.identity.admin_scope], timedelta(minutes=1))


def _print_and_check(status: RolloutStatus, as_json: bool) -> None:
    """Print a status. Raises `Exit` when something needs attention."""
    _print_status(status, as_json)
    if status.unmirrored or status.differences or status.is_overtaken:
        raise typer.Exit(1)


def _print_status(status: RolloutStatus, as_json: bool) -> None:
    if as_json:
        print_json(status)
        return
    console = create_console()
    state = "everybody was sent back" if status.is_back else f"{status.percent:g} % of users in PostgreSQL"
    shadow = ", both sides compared" if status.is_shadowing else ""
    console.print(f"{state}{shadow}; {status.to_move} still to move")
    sides = Table("side", "users", "share", "asked", "failed", "moved here", "moves failed", box=None, pad_edge=False)
    everybody = max(1, status.memory.users + status.postgres.users)
    for name, side in (("memory", status.memory), ("postgres", status.postgres)):
        users, *figures = map(str, side.model_dump().values())
        sides.add_row(name, users, f"{100 * side.users / everybody:.1f} %", *figures)
    print_table(sides)
    differences = ", ".join(f"{name} {count}" for name, count in sorted(status.differences.items())) or "none"
    console.print(f"differences: {differences} (of {status.compared} compared; {status.shadow_failures} not answered)")
    if status.is_overtaken:
        console.print("another server runs a rollout on this database: stop one of the two at once")
    if status.unmirrored:
        console.print(f"{len(status.unmirrored)} users with a last change in PostgreSQL that may be missing in memory:")
        for one in status.unmirrored:
            console.print(f"  {one.user_id}  since {one.since:%Y-%m-%d %H:%M:%S} UTC")
