"""`shopassist backup …`: create, list, verify and restore backups."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Column
from sqlalchemy import URL

from shopassist.audit.storages import insert_operator_entry
from shopassist.db.database import get_role_settings
from shopassist.db.migrate import connect, ensure_current
from shopassist.db.roles import Role, Roles, provision
from shopassist.db.statements import quote
from shopassist.errors import BackupError, StartupError
from shopassist.ops import backups
from shopassist.ops.files import describe_passing_folder
from shopassist.ops.rights import DATABASE, DatabaseRights
from shopassist.ops.startup import running_database
from shopassist.ops.targets import find_target
from shopassist.privacy.cli import PrivacyServices
from shopassist.privacy.models import ErasureListEntry
from shopassist.settings import Settings, read_settings
from shopassist.settings.database import DatabaseConfig, ProvisioningSettings
from shopassist.settings.group import load_settings
from shopassist.terminal import Columns, JsonOption, YesOption, confirm_loss, format_instant, print_json, print_rows

RunOnDatabase = Callable[..., Awaitable[Any]]
"""Runs work with the services on the database of the settings."""

app = typer.Typer(no_args_is_help=True, help="Backups of the database.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `backup list` shows it, or `newest`.")]
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Listed:
    """A backup in the folder; without a manifest when that is damaged."""

    name: str
    state: str
    manifest: backups.BackupManifest | None

    def to_row(self) -> dict[str, Any]:
        """Return the fields of the manifest and the state; rights are left out, since they are long."""
        fields = self.manifest.model_copy(update={"rights": None}).model_dump() if self.manifest else {}
        return {"name": self.name, **fields, "state": self.state}


def _show(format_cell: Callable[[backups.BackupManifest], str]) -> Callable[[Listed], str]:
    return lambda listed: format_cell(listed.manifest) if listed.manifest else "?"


BACKUP_COLUMNS: Columns = (
    (Column("name", no_wrap=True), lambda listed: listed.name),
    ("made", _show(lambda found: format_instant(found.created_at))),
    ("revision", _show(lambda found: found.contents.revision)),
    ("rows", _show(lambda found: f"{sum(found.contents.rows.values()):,}")),
    ("ledger", _show(lambda found: f"{found.contents.ledger_sum:,}")),
    ("bytes", _show(lambda found: f"{found.size:,}")),
    ("encrypted", _show(lambda found: "yes" if found.encrypted else "no")),
    ("verified", _show(lambda found: format_instant(found.verified_at) if found.verified_at else "no")),
    ("state", lambda listed: listed.state),
)

HAS_ERASURES_QUERY = "SELECT to_regclass('public.erasures') IS NOT NULL"


@app.command()
def create() -> None:
    """Back up the database, and remove the oldest backups beyond BACKUP_KEEP."""
    with running_database() as settings, console.status("backing up"):
        made = asyncio.run(backups.back_up(settings))
    rows = sum(made.contents.rows.values())
    secret = "encrypted" if made.encrypted else "not encrypted"
    typer.echo(f"{made.name}: {rows:,} rows, revision {made.contents.revision}, {made.size:,} bytes, {secret}")
    folder = backups.get_backup_folder(settings)
    if loss := describe_passing_folder(folder):
        typer.echo(f"{folder} is {loss}: put BACKUP_FOLDER on a disk or on a volume.", err=True)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """Show the backups, oldest first, and which are damaged, cut off or missing."""
    folder = backups.get_backup_folder(read_settings())
    listed = []
    for name in backups.list_backups(folder):
        manifest, state = backups.inspect_backup(folder, name)
        listed.append(Listed(name, state, manifest))
    if as_json:
        print_json([backup.to_row() for backup in listed])
    else:
        print_rows(listed, BACKUP_COLUMNS, as_json=False)


@app.command()
def verify(name: NameArgument = "newest") -> None:
    """Restore NAME into a scratch database, compare it with its manifest, and drop it."""
    with running_database() as settings, console.status("restoring into a scratch database"):
        folder = backups.get_backup_folder(settings)
        chosen = _resolve_name(folder, name)
        found = asyncio.run(_verify(settings, folder, chosen))
        _note_verification(folder, chosen)
    rows = sum(found.rows.values())
    typer.echo(f"{chosen} is whole: {rows:,} rows in {len(found.rows)} tables, ledger sum {found.ledger_sum:,}")


@app.command()
def restore(
    context: typer.Context,
    name: NameArgument,
    yes: YesOption = False,
) -> None:
    """Replace the database with NAME and keep the old one under another name. Erased users stay erased."""
    with running_database() as settings:
        folder = backups.get_backup_folder(settings)
        chosen = _resolve_name(folder, name)
        url = asyncio.run(find_target(settings))
        confirm_loss(f"Everything since {chosen} will be gone from the database {url.database}.", yes=yes)
        with console.status("restoring"):
            erase_again = partial(replay_erasures, url, settings, context.obj.on_database)
            finish = partial(finish_restore, name=chosen, erase_again=erase_again)
            identity = _get_identity(settings)
            old = asyncio.run(backups.restore_backup(url, folder, chosen, identity, finish, provision_again))
    typer.echo(f"{chosen} is restored. What was there before is kept in the database {old}: drop it when all is well.")


async def _verify(settings: Settings, folder: Path, name: str) -> backups.DatabaseContents:
    return await backups.verify_backup(await find_target(settings), folder, name, _get_identity(settings))


def _note_verification(folder: Path, name: str) -> None:
    """Write into the manifest that the backup was verified, for `doctor`."""
    manifest = backups.read_manifest(folder, name).model_copy(update={"verified_at": datetime.now(UTC)})
    try:
        backups.write_manifest(folder, manifest)
    except BackupError as error:
        typer.echo(f"`shopassist doctor` will not know of it: {error.detail}", err=True)


async def finish_restore(url: URL, name: str, erase_again: Callable[[URL], Awaitable[object]] | None = None) -> None:
    """Erase users again in a restored database, and record the restore in it."""
    if erase_again:
        await erase_again(url)
    async with connect(url) as connection:
        await insert_operator_entry(connection, "restore_backup", name)


async def provision_again(connection: asyncpg.Connection, replaced: DatabaseRights) -> None:
    """Provision the connected, restored database if the replaced one was new and provisioned: its roles may be new."""
    names = load_settings(ProvisioningSettings)
    app_role = await quote(connection, "%I", names.app_role)
    if replaced.has_schema or all(grant.role != app_role for grant in replaced.objects[DATABASE].grants):
        return
    roles = Roles(*(Role(name, None) for name in (names.owner_role, names.app_role, names.read_role)))
    await provision(connection, roles, get_role_settings(load_settings(DatabaseConfig)))


async def replay_erasures(old: URL, settings: Settings, on_database: RunOnDatabase, url: URL) -> None:
    """Erase the users in the database of `url` who were erased in `old`.

    If there are any, the schema is migrated first, because the erasure is that of this version. Raises `StartupError`
    and `MigrationError`.
    """
    async with connect(old) as connection:
        if not await connection.fetchval(HAS_ERASURES_QUERY):  # its schema is older than erasures
            return

    async def list_erasures(services: PrivacyServices) -> dict[str, ErasureListEntry]:
        # Sorted by time, so the last one of each subject remains.
        return {one.subject_hash: one for one in await services.erasure_service().list_erasures()}

    listed = await on_database(with_database_url(settings, old), list_erasures)
    if listed:
        await ensure_current(url)
        await on_database(
            with_database_url(settings, url), lambda services: services.erasure_service().repeat_listed(listed)
        )


def with_database_url(settings: Settings, url: URL) -> Settings:
    """Return the settings with `url` as the only database."""
    link = SecretStr(url.render_as_string(hide_password=False))
    # The DSN has its own TLS parameters.
    alone = {"database_url": link, "replica_url": None, "ssl_mode": None, "ssl_root_cert": None}
    database = settings.database.model_copy(update=alone)
    return settings.model_copy(update={"database": database})


def _resolve_name(folder: Path, name: str) -> str:
    names = backups.list_backups(folder) if name == "newest" else [name]
    if not names:
        raise StartupError(f"There is no backup in {folder}.")
    return names[-1]


def _get_identity(settings: Settings) -> str | None:
    return settings.backup.identity.get_secret_value() if settings.backup.identity else None
