"""`shopassist db provision`: the database's three roles, from an administrator's link."""

import secrets

import asyncpg
import typer
from pydantic import SecretStr

from shopassist.db.links import normalised
from shopassist.db.manager import role_settings
from shopassist.db.migrate import connected
from shopassist.db.postgres.roles import EXISTS, Role, Roles, provision
from shopassist.db.tls import secured
from shopassist.errors import StartupError
from shopassist.settings import DatabaseConfig, ProvisioningSettings


async def provisioned(settings: ProvisioningSettings, config: DatabaseConfig) -> None:
    """Make the roles; a new one that was given no password gets one, which is shown once.

    Raises `StartupError` with the reason when that cannot be done; nothing has been changed then.
    """
    if settings.admin_url is None:
        raise StartupError("DATABASE_ADMIN_URL is not set: the link of an administrator to the product's database.")
    url = normalised(settings.admin_url.get_secret_value(), "DATABASE_ADMIN_URL")
    url = secured(url, config, "DATABASE_ADMIN_URL")
    async with connected(url) as connection:
        wanted = {
            "DATABASE_MIGRATION_URL": (settings.owner_role, settings.owner_password),
            "DATABASE_URL": (settings.app_role, settings.app_password),
            "to read": (settings.read_role, settings.read_password),
        }
        made = {purpose: await _role(connection, *of) for purpose, of in wanted.items()}
        try:
            await provision(connection, Roles(*made.values()), role_settings(config))
        except asyncpg.PostgresError as error:
            raise StartupError(f"The roles could not be made, and nothing was changed: {error.args[0]}.") from None
    for purpose, role in made.items():
        if role.password is None or wanted[purpose][1] is not None:
            typer.echo(f"{purpose}: {role.name}")
            continue
        link = url.set(drivername="postgresql", username=role.name, password=role.password)
        typer.echo(f"{purpose}: {link.render_as_string(hide_password=False)}   (shown this once)")


async def _role(connection: asyncpg.Connection, name: str, password: SecretStr | None) -> Role:
    if password is not None:
        given = password.get_secret_value()
        if not given.isascii() or not given.isprintable():
            raise StartupError(f"The password of {name} must be of printable ASCII characters.")
        return Role(name, given)
    return Role(name, None if await connection.fetchval(EXISTS, name) else secrets.token_urlsafe(24))
