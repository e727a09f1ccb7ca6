"""`shopassist backup …`: backups of the database, made, listed, proved and restored."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Protocol, TypeVar

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column, Table
from sqlalchemy import URL

from shopassist.db.manager import role_settings
from shopassist.db.migrate import connected, ensure_current
from shopassist.db.postgres.roles import EXISTS, Role, Roles, provision
from shopassist.errors import StartupError
from shopassist.models.erasure import Listed
from shopassist.ops.backup import manifest as manifests
from shopassist.ops.backup import restore as restoring
from shopassist.ops.backup.configured import backed_up, folder_of, link_of
from shopassist.ops.operator import recorded
from shopassist.ops.session_link import protected
from shopassist.ops.startup import read_settings, running_database, said_plainly
from shopassist.ops.user_command import PrivacyServices, replayed
from shopassist.settings import DatabaseConfig, ProvisioningSettings, Settings

app = typer.Typer(no_args_is_help=True, help="Backups of the database.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `backup list` shows it, or `newest`.")]
console = Console(stderr=True)

HAS_LIST = "SELECT to_regclass('public.erasures') IS NOT NULL"
Result = TypeVar("Result")


class OnDatabase(Protocol):
    """Gives work the services on the database that settings name."""

    async def __call__(self, settings: Settings, work: Callable[[PrivacyServices], Awaitable[Result]]) -> Result: ...


def administrator_of(settings: Settings) -> URL:
    """The link that may make databases: the administrator's, else as for backing up."""
    link = said_plainly(ProvisioningSettings).admin_url
    return link_of(settings) if link is None else protected(settings, link, "DATABASE_ADMIN_URL")


@app.command()
def create() -> None:
    """Back the database up, and remove the oldest backups beyond BACKUP_KEEP."""
    with running_database() as settings, console.status("backing up"):
        made = asyncio.run(backed_up(settings))
    rows = sum(made.contents.rows.values())
    secret = "encrypted" if made.encrypted else "not encrypted"
    typer.echo(f"{made.name}: {rows:,} rows, revision {made.contents.revision}, {made.size:,} bytes, {secret}")


@app.command("list")
def list_() -> None:
    """Show the backups, oldest first."""
    folder = folder_of(read_settings())
    table = Table(Column("name", no_wrap=True), "made", "revision", "rows", "ledger", "bytes", "encrypted")
    for name in manifests.every(folder):
        found = manifests.read(folder, name)
        rows, ledger = sum(found.contents.rows.values()), found.contents.ledger_sum
        made, secret = f"{found.created_at:%Y-%m-%d %H:%M:%S} UTC", "yes" if found.encrypted else "no"
        table.add_row(name, made, found.contents.revision, f"{rows:,}", f"{ledger:,}", f"{found.size:,}", secret)
    Console().print(table)


@app.command()
def verify(name: NameArgument = "newest") -> None:
    """Restore NAME into a scratch database, compare it with its manifest, and drop it."""
    with running_database() as settings, console.status("restoring into a scratch database"):
        folder = folder_of(settings)
        chosen = _chosen(folder, name)
        found = asyncio.run(restoring.verify(administrator_of(settings), folder, chosen, _identity(settings)))
    rows = sum(found.rows.values())
    typer.echo(f"{chosen} is whole: {rows:,} rows in {len(found.rows)} tables, ledger sum {found.ledger_sum:,}")


@app.command()
def restore(
    context: typer.Context,
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put NAME in the place of the database, which is kept under another name. Who was erased since stays erased."""
    with running_database() as settings:
        folder = folder_of(settings)
        chosen = _chosen(folder, name)
        url = administrator_of(settings)
        if not yes:
            typer.confirm(
                f"Everything since {chosen} will be gone from the database {url.database}. Go on?", abort=True
            )
        with console.status("restoring"):
            on_database: OnDatabase = context.obj.on_database
            finished = partial(finish, name=chosen, erase_again=partial(erased_again, url, settings, on_database))
            old = asyncio.run(restoring.restore(url, folder, chosen, _identity(settings), finished))
    typer.echo(f"{chosen} is restored. What was there before is kept in the database {old}: drop it when all is well.")


async def finish(url: URL, name: str, erase_again: Callable[[URL], Awaitable[object]] | None = None) -> None:
    """Give a database restored from backup `name` to the roles that there are, and record in it that it was.

    Whom `erase_again` knows of is erased in it before anybody else can look.
    """
    if erase_again:
        await erase_again(url)
    names = ProvisioningSettings()
    async with connected(url) as connection:
        if await connection.fetchval(EXISTS, names.app_role):
            roles = Roles(*(Role(name, None) for name in (names.owner_role, names.app_role, names.read_role)))
            await provision(connection, roles, role_settings(DatabaseConfig()))
        await recorded(connection, "restore_backup", name)


async def erased_again(old: URL, settings: Settings, on_database: OnDatabase, url: URL) -> int:
    """Erase in the database of `url` whoever was erased in `old`, which it is to take the place of; how many were.

    The erasure is this version's, so the schema is brought up to it when there is anybody on the list. Raises
    `StartupError` and `MigrationError`.
    """
    listed = await erased_in(old, settings, on_database)
    if not listed:
        return 0
    await ensure_current(url)
    return await on_database(at(settings, url), lambda services: replayed(services.erasure_service(), listed))


async def erased_in(url: URL, settings: Settings, on_database: OnDatabase) -> dict[str, Listed]:
    """The last erasure of each subject in a database, by hash; nobody where its schema knows of none."""
    async with connected(url) as connection:
        if not await connection.fetchval(HAS_LIST):
            return {}

    async def read(services: PrivacyServices) -> dict[str, Listed]:
        # The oldest first, so the last of a subject stays.
        return {one.subject_hash: one async for one in services.erasure_service().listed()}

    return await on_database(at(settings, url), read)


def at(settings: Settings, url: URL) -> Settings:
    """The settings, on the database of `url` alone."""
    link = SecretStr(url.render_as_string(hide_password=False))
    # The link itself says how it is protected.
    alone = {"database_url": link, "replica_url": None, "ssl_mode": None, "ssl_root_cert": None}
    database = settings.database.model_copy(update=alone)
    return settings.model_copy(update={"database": database})


def _chosen(folder: Path, name: str) -> str:
    if name != "newest":
        return name
    names = manifests.every(folder)
    if not names:
        raise StartupError(f"There is no backup in {folder}.")
    return names[-1]


def _identity(settings: Settings) -> str | None:
    return settings.backup.identity.get_secret_value() if settings.backup.identity else None
