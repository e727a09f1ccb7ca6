"""`shopassist db …`: upgrade, downgrade and show the schema, provision the roles."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import asyncpg
import typer
from pydantic import SecretStr
from sqlalchemy import URL

from shopassist.db import migrate
from shopassist.db.database import get_role_settings
from shopassist.db.dsn import (
    apply_tls_settings,
    format_hosts_and_database,
    get_session_setting,
    normalise_dsn,
    require_session_dsn,
)
from shopassist.db.migrate import connect
from shopassist.db.roles import ROLE_EXISTS, Role, Roles, provision
from shopassist.errors import StartupError
from shopassist.ops.startup import running_database
from shopassist.settings.database import DatabaseConfig, ProvisioningSettings
from shopassist.settings.group import load_settings
from shopassist.terminal import JsonOption, YesOption, confirm_loss, print_json

database_app = typer.Typer(no_args_is_help=True, help="The schema of the database.")


@contextmanager
def running_session_dsn() -> Iterator[tuple[URL, str]]:
    """Run the database; give the owner's DSN or a direct one, and its setting. Raises `StartupError` for none."""
    with running_database() as settings:
        yield require_session_dsn(settings), get_session_setting(settings)


@database_app.command()
def upgrade(revision: Annotated[str, typer.Argument()] = "head") -> None:
    """Upgrade the schema to REVISION."""
    with running_session_dsn() as (url, setting):
        asyncio.run(migrate.upgrade(url, revision, setting))
        typer.echo(asyncio.run(migrate.get_current_revision(url, setting)))


@database_app.command(context_settings={"ignore_unknown_options": True})  # for "-1"
def downgrade(
    revision: Annotated[str, typer.Argument(help='"-1" for one step, "base" for all.')], yes: YesOption = False
) -> None:
    """Downgrade the schema to REVISION; the tables and columns of the later revisions are lost with their content."""
    with running_session_dsn() as (url, setting):
        if undone := asyncio.run(migrate.list_undone(url, revision, setting)):
            where = format_hosts_and_database(url)
            confirm_loss(f"All that is stored in {where} by these revisions will be lost: {' '.join(undone)}", yes=yes)
        asyncio.run(migrate.downgrade(url, revision, setting))
        typer.echo(asyncio.run(migrate.get_current_revision(url, setting)) or "base")


@database_app.command()
def current() -> None:
    """Show the revision of the database."""
    with running_session_dsn() as (url, setting):
        typer.echo(asyncio.run(migrate.get_current_revision(url, setting)) or "base")


@database_app.command()
def history(as_json: JsonOption = False) -> None:
    """Show every revision, oldest first."""
    revisions = migrate.list_revisions()
    if as_json:
        print_json([{"revision": revision, "title": title} for revision, title in revisions])
        return
    for revision, title in revisions:
        typer.echo(f"{revision}  {title}")


@database_app.command("provision")
def provision_() -> None:
    """Create the three roles of the database (owner, app, reader), connected with DATABASE_ADMIN_URL."""
    asyncio.run(provision_roles(load_settings(ProvisioningSettings), load_settings(DatabaseConfig)))


async def provision_roles(settings: ProvisioningSettings, config: DatabaseConfig) -> None:
    """Create or update the roles. A new role without a password gets one, which is printed once.

    Raises `StartupError` with the reason; then nothing was changed.
    """
    if settings.admin_url is None:
        raise StartupError("DATABASE_ADMIN_URL is not set: the link of an administrator to the product's database.")
    url = normalise_dsn(settings.admin_url.get_secret_value(), "DATABASE_ADMIN_URL")
    url = apply_tls_settings(url, config, "DATABASE_ADMIN_URL")
    async with connect(url, "DATABASE_ADMIN_URL") as connection:
        requested = {
            "DATABASE_MIGRATION_URL": (settings.owner_role, settings.owner_password),
            "DATABASE_URL": (settings.app_role, settings.app_password),
            "to read": (settings.read_role, settings.read_password),
        }
        roles = {purpose: await _build_role(connection, *of) for purpose, of in requested.items()}
        try:
            await provision(connection, Roles(*roles.values()), get_role_settings(config))
        except asyncpg.PostgresError as error:
            raise StartupError(f"The roles could not be made, and nothing was changed: {error.args[0]}.") from None
    for purpose, role in roles.items():
        if role.password is None or requested[purpose][1] is not None:
            typer.echo(f"{purpose}: {role.name}")
            continue
        link = url.set(drivername="postgresql", username=role.name, password=role.password)
        typer.echo(f"{purpose}: {link.render_as_string(hide_password=False)}   (shown this once)")


async def _build_role(connection: asyncpg.Connection, name: str, password: SecretStr | None) -> Role:
    if password is not None:
        given = password.get_secret_value()
        if not given.isascii() or not given.isprintable():
            raise StartupError(f"The password of {name} must be of printable ASCII characters.")
        return Role(name, given)
    return Role(name, None if await connection.fetchval(ROLE_EXISTS, name) else secrets.token_urlsafe(24))
