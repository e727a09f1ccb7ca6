"""Schema migrations, applied once however many processes start together."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from shopassist.db.connections import HostSelector
from shopassist.db.dsn import format_hosts_and_database, get_tls_error_message
from shopassist.errors import DatabaseAbsentError, MigrationError, StartupError, StorageUnavailableError
from shopassist.settings.database import SslMode

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS_FOLDER = Path(__file__).resolve().parents[2] / "migrations"
MIGRATION_LOCK_KEY = 0x5B0FA551
POLL_SECONDS = 0.1
LOCK_WAIT_SECONDS = 600
LOCK_TIMEOUT = "500ms"
"""Statements queue behind a migration that waits for a lock: so it gives up soon and is retried."""
NO_REVISION = "There is no revision {!r}: see `shopassist db history`."
STEP_RETRY_PAUSE_SECONDS = 1.0
STEP_RETRY_SECONDS = 120
SYNTAX_STATE = "42601"
PARAMETER_STATES = {"42704", "22023", "42602", "55P02", "42501", "08P01", SYNTAX_STATE}
"""SQLSTATEs of parameters that are unknown, not valid or not allowed; the last one is a pooler's."""
POOLER_MESSAGE = (
    "The pooler at {} refuses {}, which this server sets for each connection: set DB_POOL_MODE to transaction, or name "
    "it in the pooler's ignore_startup_parameters."
)
CONNECT_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, StorageUnavailableError)
LOCK_ERRORS = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


def list_known_revisions() -> list[str]:
    """Return the revisions that this code knows, oldest first: the numbers at the start of the file names."""
    return sorted(path.name.split("_")[0] for path in (MIGRATIONS_FOLDER / "versions").glob("[0-9]*_*.py"))


async def ensure_current(
    url: URL, before: Callable[[], Awaitable[object]] | None = None, setting: str = "DATABASE_URL"
) -> bool:
    """Upgrade an old schema and return whether it was old. `before` is awaited before existing tables change.

    Raises `MigrationError` when the database is ahead of this code or a migration fails (the next start continues after
    the last successful one), `DatabaseAbsentError` when the database is unreachable, and `StartupError` when it refuses
    the login.
    """
    newest = list_known_revisions()[-1]
    async with connect(url, setting) as connection:
        if await fetch_revision(connection) == newest:
            return False
        async with _hold_migration_lock(connection) as current:
            if current == newest:
                return False
            if before is not None and current is not None:
                await before()
            await _run_alembic("upgrade", url, "head", connection)
            return True


async def require_schema(url: URL, setting: str = "DATABASE_URL") -> None:
    """Raise `MigrationError` if the database has no schema, and what `connect` raises."""
    if await get_current_revision(url, setting) is None:
        raise MigrationError(
            f"The database {format_hosts_and_database(url)} has no schema of this product: check that {setting} names "
            "the right one, or run `shopassist db upgrade` with the owner's link."
        )


async def require_current(url: URL, setting: str = "DATABASE_URL") -> None:
    """Raise `MigrationError` unless the schema is at the revision that this code needs."""
    found, newest = await get_current_revision(url, setting), list_known_revisions()[-1]
    _reject_newer(found)
    if found != newest:
        raise MigrationError(
            f"The database is at revision {found or 'base'} and this version needs {newest}: set "
            "DATABASE_MIGRATION_URL to the owner's link, past any pooler, or run `shopassist db upgrade` with it."
        )


async def upgrade(url: URL, revision: str = "head", setting: str = "DATABASE_URL") -> None:
    """Upgrade to `revision`. Raises the same errors as `ensure_current`."""
    async with connect(url, setting) as connection, _hold_migration_lock(connection):
        await _run_alembic("upgrade", url, revision, connection)


async def downgrade(url: URL, revision: str, setting: str = "DATABASE_URL") -> None:
    """Downgrade to `revision` ("-1" for one step, "base" for all). Raises the same errors as `ensure_current`."""
    async with connect(url, setting) as connection, _hold_migration_lock(connection) as current:
        await _run_alembic("downgrade", url, _find_target(current, revision), connection)


async def list_undone(url: URL, revision: str, setting: str = "DATABASE_URL") -> list[str]:
    """Return the revisions and titles that `downgrade` would undo, newest first. Raises the same errors."""
    current = await get_current_revision(url, setting)
    _reject_newer(current)
    target = _find_target(current, revision)
    kept = "" if target == "base" else target
    return [f"{number} {title}" for number, title in reversed(list_revisions()) if kept < number <= (current or "")]


def _find_target(current: str | None, revision: str) -> str:
    """Return the revision to downgrade to. Raises `MigrationError` if there is no such revision."""
    targets = ["base", *list_known_revisions()]
    if revision.startswith("-") and revision[1:].isdecimal():
        target = targets.index(current or "base") - int(revision[1:])
        if target < 0:
            raise MigrationError(f"There are not so many steps below revision {current or 'base'}.")
        return targets[target]
    if revision not in targets:
        raise MigrationError(NO_REVISION.format(revision))
    return revision


async def get_current_revision(url: URL, setting: str = "DATABASE_URL") -> str | None:
    """Return the revision of the database, or None if it is empty. Raises `StartupError` if it is unreachable."""
    async with connect(url, setting) as connection:
        return await fetch_revision(connection)


def list_revisions() -> list[tuple[str, str]]:
    """Return every revision that this code knows and its description, oldest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - costs a warm start 0.2 s

    scripts = ScriptDirectory.from_config(build_alembic_config(None)).walk_revisions()
    return [(script.revision, script.doc) for script in scripts][::-1]


def build_alembic_config(url: URL | None) -> "Config":
    """Return Alembic's configuration, with `url` as an attribute, so that no password is in a file or log."""
    from alembic.config import Config  # noqa: PLC0415 - costs a warm start 0.2 s

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_FOLDER).replace("%", "%%"))
    config.attributes.update(url=url, lock_timeout=LOCK_TIMEOUT)
    return config


@asynccontextmanager
async def connect(
    url: URL, setting: str = "DATABASE_URL", server_settings: Mapping[str, str] | None = None
) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection for the length of the block. Raises `StartupError` that names `setting`, the DSN's source."""
    try:
        # Without prepared statements the revision can also be read through a pooler.
        options = {"timeout": 10, "statement_cache_size": 0, "server_settings": dict(server_settings or {})}
        connection = await HostSelector(url).connect(**options)
    except (*CONNECT_ERRORS, ValueError, KeyError) as error:
        if parameter := find_refused_parameter(error, server_settings or {}):
            raise StartupError(POOLER_MESSAGE.format(format_hosts_and_database(url), parameter)) from None
        raise _explain_refusal(error, url, setting) from None
    where = format_hosts_and_database(url)
    try:
        yield connection
    except (
        OSError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InterfaceError,
    ) as lost:
        if isinstance(lost, OSError) and lost.filename:  # of a file, not of the connection
            raise
        raise DatabaseAbsentError(f"The database at {where} was lost during preparation.") from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartupError(f"The database at {where} refuses what the role of {setting} needs: {error}.") from None
    except asyncpg.PostgresError as error:
        error.add_note(setting)  # for `describe_database_error`
        raise
    finally:
        await connection.close()


def _explain_refusal(error: Exception, url: URL, setting: str) -> StartupError:
    """Return why no connection was opened."""
    where = format_hosts_and_database(url)
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        is_without_tls = url.query.get("ssl") == SslMode.DISABLE
        reason = "the user, the password or a way without TLS" if is_without_tls else "the user or password"
        return StartupError(f"The database at {where} refuses {reason} of {setting}.")
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return StartupError(f"The database server at {where} has no database of that name: check {setting}.")
    if isinstance(error, OSError) and error.filename:  # a key or password file in the home folder
        return StartupError(f"{error.filename} cannot be used: {error.strerror}.")
    if problem := get_tls_error_message(error):
        return StartupError(f"The database at {where} {problem}.")
    if parameter := find_refused_parameter(error, url.query):
        return StartupError(
            f"The database at {where} refuses the parameter {parameter} in {setting}: remove or correct it."
        )
    # Waiting helps neither a role that may not connect, nor a wrong link, nor a missing user, which is a `KeyError`.
    is_absent = isinstance(error, CONNECT_ERRORS) and not isinstance(error, asyncpg.InsufficientPrivilegeError)
    reason = f" ({error.args[0]})" if isinstance(error, asyncpg.PostgresError) else ""
    kind = DatabaseAbsentError if is_absent else StartupError
    hint = "" if url.username or "user" in url.query else ", which names no user"
    return kind(f"The database at {where} cannot be reached{reason}: check {setting}{hint}.")


def find_refused_parameter(error: BaseException, given: Mapping[str, Any]) -> str | None:
    """Return which of the given parameters a server, or a pooler, does not know or accept, by its error."""
    if not isinstance(error, asyncpg.PostgresError) or error.sqlstate not in PARAMETER_STATES:
        return None
    named = [word for word in re.findall(r"[\w.]+", str(error)) if word in given]
    # Where `options` are no options, the error names what they are instead.
    return next(iter(named), "options" if "options" in given and error.sqlstate == SYNTAX_STATE else None)


async def fetch_revision(connection: asyncpg.Connection) -> str | None:
    """Return the revision of the connected database, or None if it is empty."""
    try:
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return None if revision is None else str(revision)


@asynccontextmanager
async def _hold_migration_lock(connection: asyncpg.Connection) -> AsyncIterator[str | None]:
    """Give the revision, which nobody else changes in this block. Raises `MigrationError` if it is not known here.

    Poll for the lock: a session waiting in `pg_advisory_lock` would block `CREATE INDEX CONCURRENTLY` forever.
    """
    waited = 0.0
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", MIGRATION_LOCK_KEY):
        if waited >= LOCK_WAIT_SECONDS:
            raise MigrationError(f"Another process has been migrating the database for {LOCK_WAIT_SECONDS} s.")
        await asyncio.sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    try:
        current = await fetch_revision(connection)
        _reject_newer(current)
        yield current
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK_KEY)


def _reject_newer(revision: str | None) -> None:
    known = list_known_revisions()
    if revision is not None and revision not in known:
        raise MigrationError(
            f"The database is at revision {revision}, which this version does not know (it knows up to "
            f"{known[-1]}): deploy the newer version, or downgrade the database with it first."
        )


async def _run_alembic(
    direction: Literal["upgrade", "downgrade"], url: URL, revision: str, connection: asyncpg.Connection
) -> None:
    """Migrate to a revision, with retries on lock time-outs; completed steps are kept.

    Alembic blocks and runs its own event loop, hence the thread.
    """
    from alembic import command  # noqa: PLC0415 - costs a warm start 0.2 s
    from alembic.script.revision import ResolutionError  # noqa: PLC0415 - costs a warm start 0.2 s
    from alembic.util.exc import CommandError  # noqa: PLC0415 - costs a warm start 0.2 s

    give_up_at = time.monotonic() + STEP_RETRY_SECONDS
    while True:
        try:
            return await asyncio.to_thread(getattr(command, direction), build_alembic_config(url), revision)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseAbsentError(
                    f"The database at {format_hosts_and_database(url)} was lost during a migration."
                ) from error
            cause = getattr(error.orig, "__cause__", None)
            if not isinstance(cause, LOCK_ERRORS) or time.monotonic() > give_up_at:
                reason = str(cause or type(error).__name__).splitlines()[0]
                at = await fetch_revision(connection) or "base"
                raise MigrationError(f"A migration failed and the schema is at revision {at}: {reason}.") from error
        except CommandError as error:
            if isinstance(error.__cause__, ResolutionError):
                raise MigrationError(NO_REVISION.format(revision)) from error
            raise MigrationError(f"The migration cannot be done: {error}.") from error
        await asyncio.sleep(STEP_RETRY_PAUSE_SECONDS)
