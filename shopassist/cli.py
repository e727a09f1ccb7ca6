"""The command line `shopassist …`: joins the commands of all folders and gives them services."""

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr

from shopassist import __version__
from shopassist.cache import cli as cache_cli
from shopassist.catalog import cli as catalog_cli
from shopassist.catalog.ports import CatalogRepositories
from shopassist.consent import cli as consent_cli
from shopassist.credits import cli as credits_cli
from shopassist.db.dsn import build_dsn, get_link_setting
from shopassist.db.embedded.programs import die_with_parent
from shopassist.db.failures import describe_database_error
from shopassist.db.migrate import require_schema
from shopassist.db.ports import UnitOfWork
from shopassist.errors import ShopAssistError, StartupError, StorageUnavailableError
from shopassist.identity.tokens import DevelopmentIssuer
from shopassist.logging import configure_logging
from shopassist.maintenance import cli as maintenance_cli
from shopassist.ops import backup_cli
from shopassist.ops.db_cli import database_app
from shopassist.ops.doctor import print_findings, run_checks
from shopassist.ops.snapshot import cli as snapshot_cli
from shopassist.ops.startup import prepare, require_privileges, running_database
from shopassist.privacy import cli as privacy_cli
from shopassist.rollout import cli as rollout_cli
from shopassist.settings import Settings, read_settings
from shopassist.terminal import JsonOption

Result = TypeVar("Result")

HELP = (
    "Run and look after shopassist, an API that answers shopping questions.\n\n"
    "`shopassist serve` starts it, and `shopassist doctor` checks a deployment. Settings come from the environment "
    "and a `.env` file; the README lists them."
)

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

app.add_typer(database_app, name="db")
app.add_typer(credits_cli.app, name="credits")
app.add_typer(catalog_cli.app, name="catalog")
app.add_typer(cache_cli.app, name="cache")
app.add_typer(backup_cli.app, name="backup")
app.add_typer(privacy_cli.app, name="user")
app.add_typer(rollout_cli.app, name="rollout")
app.add_typer(snapshot_cli.app, name="state")
app.add_typer(maintenance_cli.app, name="maintenance")
app.add_typer(consent_cli.app, name="consent")


@app.command()
def serve(
    with_parent: Annotated[bool, typer.Option("--with-parent", help="Stop when the starting process ends.")] = False,
) -> None:
    """Serve the API, on the database of DATABASE_URL or else on an embedded PostgreSQL."""
    if with_parent:
        die_with_parent()
    from shopassist.asgi import run_server  # noqa: PLC0415 - other commands start faster without it

    settings = read_settings()
    configure_logging(settings.server.log_level)
    run_server(settings)


@app.command()
def token(
    subject: Annotated[str, typer.Option("--sub", help="The user's id.")],
    admin: Annotated[bool, typer.Option("--admin", help="With administrator rights.")] = False,
    hours: Annotated[float, typer.Option(help="How long it is valid.", min=0.01, max=720)] = 24,
) -> None:
    """Create an access token for local use. Only a server with the embedded database on loopback accepts it."""
    settings = read_settings()
    if settings.server.production:
        raise StartupError(
            "ENVIRONMENT=production: no server accepts such a token there; get one from the issuer in OIDC_ISSUER."
        )
    if not subject.strip():
        raise StartupError("--sub is empty: give the id of the token's user.")
    scopes = [settings.identity.admin_scope] if admin else []
    issuer = DevelopmentIssuer(settings)
    typer.echo(issuer.mint(subject, scopes, timedelta(hours=hours)))


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check the deployment and say what to put right; exit code 1 if there is a problem."""
    with running_database() as settings:
        if not print_findings(asyncio.run(run_checks(settings)), as_json=as_json):
            raise typer.Exit(1)


async def on_database(settings: Settings, work: Callable[[Any], Awaitable[Result]]) -> Result:
    """Run `work` with the services on the database of the settings; return its result."""
    from containers import Container  # noqa: PLC0415 - other commands start faster without it

    container = Container(settings=settings)
    try:
        return await work(container)
    finally:
        await container.shutdown()


def with_services(
    work: Callable[[privacy_cli.PrivacyServices], Awaitable[Result]], *, like_a_server: bool = False
) -> Result:
    """Start the database and run `work` with the services; return its result. Raises `StartupError`.

    The database is checked first, because a service would only say that it cannot be reached. `like_a_server` checks
    the rights too.
    """

    async def check_and_work(settings: Settings, link: SecretStr) -> Result:
        url = build_dsn(settings, link)
        await require_schema(url, get_link_setting(settings))
        if like_a_server:
            await require_privileges(url)
        return await on_database(settings, work)

    with running_database() as settings:
        return asyncio.run(check_and_work(settings, require_database_url(settings)))


def with_prepared_database(work: Callable[[UnitOfWork[CatalogRepositories]], Awaitable[None]]) -> None:
    """Start and migrate the database, and run `work` on it. Raises `StartupError`."""

    async def prepare_and_work(container: Any) -> None:
        await prepare(container.settings(), container.unit_of_work())
        await work(container.unit_of_work())

    with running_database() as settings:
        require_database_url(settings)
        asyncio.run(on_database(settings, prepare_and_work))


def require_database_url(settings: Settings) -> SecretStr:
    """Return the link to the database. Raises `StartupError` if everything is in memory."""
    link = settings.database.database_url
    if link is None or not settings.storage.has_database:
        raise StartupError("STORAGE=memory has no database: what a command stored in memory would be lost at its end.")
    return link


def print_version(requested: bool) -> None:
    """Print the version and exit, if `--version` was given."""
    if requested:
        typer.echo(f"shopassist {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def provide_services(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback acts on it
        bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Give the commands of other modules the services."""
    context.obj = SimpleNamespace(
        with_services=with_services, on_database=on_database, with_prepared_database=with_prepared_database
    )


def describe_error(error: Exception) -> str | None:
    """Return a sentence for the operator about an error that is no defect of the program, or None."""
    if isinstance(error, ShopAssistError) and not isinstance(error, StorageUnavailableError):
        return error.detail
    if sentence := describe_database_error(error):
        return sentence
    if isinstance(error, OSError):
        what = f"{error.filename} cannot be used" if error.filename else "Input or output failed"
        return f"{what}: {error.strerror or str(error) or type(error).__name__}."
    if isinstance(error, UnicodeError):
        return f"A text is not UTF-8: {error}."
    return None


def run() -> None:
    """Run the command; print known errors as one sentence."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # it may not be able to print ₹
    configure_logging("warning")  # to standard error: programs may read the output
    try:
        app()
    except Exception as error:
        sentence = describe_error(error)
        if sentence is None:
            raise
        typer.echo(f"shopassist: {' '.join(sentence.split())}", err=True)
        sys.exit(1)
