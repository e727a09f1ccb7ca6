"""The command line: `shopassist …`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Protocol, TypeVar

import typer
from sqlalchemy import URL

from shopassist.db import migrate
from shopassist.db.embedded import die_with_parent
from shopassist.errors import ShopAssistError, StartupError
from shopassist.identity.development import DevelopmentIssuer
from shopassist.identity.trust import development_key
from shopassist.ops import backup_command, maintenance_command, rollout_command, state_command, user_command
from shopassist.ops import catalog_command as command
from shopassist.ops import notice_command as notice
from shopassist.ops.backup.configured import link_of
from shopassist.ops.doctor_command import examined, show
from shopassist.ops.ledger_command import verified
from shopassist.ops.provision_command import provisioned
from shopassist.ops.startup import prepare, read_settings, running_database, said_plainly
from shopassist.ops.tune_command import machine_of, tuned
from shopassist.services.ledger_audit import LedgerAuditService
from shopassist.services.notices import NoticeService
from shopassist.settings import DatabaseConfig, ProvisioningSettings, Settings, Storage
from shopassist.telemetry import configure_logging

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
database = typer.Typer(no_args_is_help=True, help="The schema of the database.")
catalogue = typer.Typer(no_args_is_help=True, help="The catalogue of products.")
ledger = typer.Typer(no_args_is_help=True, help="Credit accounts and their ledger.")
consents = typer.Typer(no_args_is_help=True, help="What people are asked to agree to.")
app.add_typer(database, name="db")
app.add_typer(ledger, name="credits")
app.add_typer(catalogue, name="catalog")
app.add_typer(backup_command.app, name="backup")
app.add_typer(user_command.app, name="user")
app.add_typer(rollout_command.app, name="rollout")
app.add_typer(state_command.app, name="state")
app.add_typer(maintenance_command.app, name="maintenance")
app.add_typer(consents, name="consent")

Result = TypeVar("Result")


class OperatedServices(user_command.PrivacyServices, maintenance_command.MaintenanceServices, Protocol):
    """What commands take from the container."""

    def ledger_audit(self) -> LedgerAuditService: ...

    def notice_service(self) -> NoticeService: ...


@contextmanager
def database_url() -> Iterator[URL]:
    """The owner's link to the database that runs, else its link past any pooler. Raises `StartupError` for none."""
    with running_database() as settings:
        yield link_of(settings)


@app.command()
def serve(
    with_parent: Annotated[bool, typer.Option("--with-parent", help="Stop when the starting process ends.")] = False,
) -> None:
    """Serve the API, on the database of DATABASE_URL or else on an embedded PostgreSQL."""
    if with_parent:
        die_with_parent()
    from containers import Container  # noqa: PLC0415 - everything else starts faster without all parts
    from shopassist.server import ServedServices, start  # noqa: PLC0415

    def container_of(prepared: Settings) -> ServedServices:
        return Container(settings=prepared)

    settings = read_settings()
    configure_logging(settings.server.log_level)
    start(settings, container_of)


@app.command()
def token(
    subject: Annotated[str, typer.Option("--sub", help="The user's id.")],
    admin: Annotated[bool, typer.Option("--admin", help="With administrator rights.")] = False,
    hours: Annotated[float, typer.Option(help="How long it is valid.", min=0.01, max=720)] = 24,
) -> None:
    """Mint an access token for local use, believed only by a server on the embedded database and on loopback."""
    settings = read_settings()
    scopes = [settings.identity.admin_scope] if admin else []
    issuer = DevelopmentIssuer(development_key(settings))
    typer.echo(issuer.mint(subject, scopes, timedelta(hours=hours)))


@app.command()
def doctor() -> None:
    """Look the deployment over and say what to put right; exit code 1 when something is."""
    with running_database() as settings:
        if not show(asyncio.run(examined(settings))):
            raise typer.Exit(1)


@database.command()
def upgrade(revision: Annotated[str, typer.Argument()] = "head") -> None:
    """Bring the schema up to REVISION."""
    with database_url() as url:
        asyncio.run(migrate.upgrade(url, revision))
        typer.echo(asyncio.run(migrate.current(url)))


@database.command()
def downgrade(revision: Annotated[str, typer.Argument(help='"-1" for one step, "base" for all.')]) -> None:
    """Take the schema back to REVISION."""
    with database_url() as url:
        asyncio.run(migrate.downgrade(url, revision))
        typer.echo(asyncio.run(migrate.current(url)) or "base")


@database.command()
def current() -> None:
    """Show the revision of the database."""
    with database_url() as url:
        typer.echo(asyncio.run(migrate.current(url)) or "base")


@database.command()
def history() -> None:
    """Show every revision, oldest first."""
    for revision, title in migrate.history():
        typer.echo(f"{revision}  {title}")


@database.command()
def tune(
    memory: Annotated[str | None, typer.Option(help="That PostgreSQL may have, such as 8GB; unless said, all.")] = None,
    cores: Annotated[int | None, typer.Option(help="Unless said, those of this machine.", min=1)] = None,
    spinning: Annotated[bool, typer.Option("--spinning", help="Its disk is no solid-state one.")] = False,
    as_sql: Annotated[bool, typer.Option("--sql", help="As statements for psql.")] = False,
) -> None:
    """Print what to set in PostgreSQL for its machine and for this product, and why."""
    with running_database() as settings:
        asyncio.run(tuned(settings, machine_of(memory, cores, spinning=spinning), as_sql=as_sql))


@database.command("provision")
def provision_() -> None:
    """Make the three roles of the database (owner, app, reader) with the link of DATABASE_ADMIN_URL."""
    asyncio.run(provisioned(said_plainly(ProvisioningSettings), said_plainly(DatabaseConfig)))


@catalogue.command("import")
def import_(
    file: command.FileArgument,
    source: command.SourceOption = None,
    columns: command.MapOption = None,
    currency: command.CurrencyOption = None,
    minor: command.MinorOption = None,
    link_template: command.LinkOption = None,
    rejects: command.RejectsOption = None,
) -> None:
    """Add the products of FILE, or bring them up to date by their source and id."""
    from containers import Container  # noqa: PLC0415 - everything else starts faster without all parts

    plan = command.planned(file, source, columns, currency, minor, link_template, rejects)

    async def run(settings: Settings) -> None:
        container = Container(settings=settings)
        try:
            await prepare(settings, container.unit_of_work())
            await command.imported(plan, container.unit_of_work())
        finally:
            await container.shutdown()

    with running_database() as settings:
        asyncio.run(run(settings))


async def on_database(settings: Settings, work: Callable[[OperatedServices], Awaitable[Result]]) -> Result:
    """What `work` comes to over the services on the database that the settings name."""
    from containers import Container  # noqa: PLC0415 - everything else starts faster without all parts

    container = Container(settings=settings)
    try:
        return await work(container)
    finally:
        await container.shutdown()


def with_services(work: Callable[[OperatedServices], Awaitable[Result]]) -> Result:
    """What `work` comes to over the services on the database that runs. Raises `StartupError` for state in memory."""
    with running_database() as settings:
        if settings.storage.storage is Storage.MEMORY:
            raise StartupError("STORAGE=memory has no database.")
        return asyncio.run(on_database(settings, work))


@dataclass(frozen=True, slots=True)
class Operating:
    """What commands of other modules work with: the services on the database that runs, and on any other."""

    with_services: Callable[..., Any]
    on_database: Callable[..., Awaitable[Any]]


@app.callback(help=__doc__)
def root(context: typer.Context) -> None:
    """Let the commands of other modules have the services."""
    context.obj = Operating(with_services, on_database)


@ledger.command()
def verify() -> None:
    """Recompute every balance from the ledger and list what has drifted; exit code 1 when something has."""
    if not with_services(lambda services: verified(services.ledger_audit())):
        raise typer.Exit(1)


@consents.command()
def publish(
    purpose: notice.PurposeArgument,
    file: notice.FileArgument,
    locale: notice.LocaleOption,
    version: notice.VersionOption = None,
    grace_hours: notice.GraceOption = None,
    reason: notice.ReasonOption = None,
) -> None:
    """Publish the text in FILE, for good, as what people are shown when they are asked to agree to PURPOSE."""
    publication = notice.publication_of(purpose, file, locale, version, grace_hours)
    with_services(lambda services: notice.published(services.notice_service(), publication, reason))


@consents.command()
def notices() -> None:
    """List what is published."""
    with_services(lambda services: notice.listed(services.notice_service()))


def run() -> None:
    """Run the command that was asked for; what is wrong is said in one sentence."""
    configure_logging("warning")  # to standard error: what a command prints may be read by a program
    try:
        app()
    except ShopAssistError as error:
        typer.echo(f"shopassist: {error.detail}", err=True)
        sys.exit(1)
