"""Creates, verifies and restores backups: a dump, and a manifest of what the dump must contain.

A backup is verified and restored into a new database first.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import URL

from shopassist.db import statements
from shopassist.db.migrate import connect, list_known_revisions
from shopassist.errors import BackupError
from shopassist.ops.dumps import find_programs, parse_identity, parse_recipient, restore_dump, write_dump
from shopassist.ops.files import write_private_file
from shopassist.ops.rights import DatabaseRights, create_database_like, read_rights, restore_rights
from shopassist.ops.targets import MAINTENANCE_DATABASE, find_source
from shopassist.settings import Settings

LEFTOVER_SECONDS = 24 * 3600
MAX_NAME_LENGTH = 63
WHOLE = "whole"
TERMINATE_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()
"""
NAME_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
TABLES_QUERY = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1
"""
REVISION_QUERY = "SELECT version_num FROM alembic_version"
LEDGER_SUM_QUERY = "SELECT COALESCE(sum(amount), 0)::bigint FROM credit_transactions"
BALANCE_SUM_QUERY = "SELECT COALESCE(sum(available_credits::bigint + held_credits), 0)::bigint FROM user_credits"
FinishRestore = Callable[[URL], Awaitable[object]]
ProvisionAgain = Callable[[asyncpg.Connection, DatabaseRights], Awaitable[object]]


class DatabaseContents(BaseModel):
    """Schema revision, row counts by table, and the sums that must agree."""

    model_config = ConfigDict(frozen=True)

    revision: str
    rows: dict[str, int]
    ledger_sum: int = Field(description="of all transactions, in credits")
    balance_sum: int = Field(description="of all accounts, available and held, in credits")


class BackupManifest(BaseModel):
    """A backup: properties of the dump file of the same name, and the expected contents."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN.pattern}$")]
    created_at: datetime
    server_version: int = Field(description="PostgreSQL's `server_version_num`")
    contents: DatabaseContents
    encrypted: bool
    size: int = Field(description="of the dump's file, bytes")
    sha256: str = Field(description="of the dump's file, hexadecimal")
    dumped_by: int = Field(0, description="major version of pg_dump; 0 if it is not known")
    rights: DatabaseRights | None = Field(None, description="owners, grants and settings, which the dump lacks")
    verified_at: datetime | None = Field(None, description="when it was last restored into a scratch database")


def get_dump_file(folder: Path, name: str) -> Path:
    """Return the path of a dump."""
    return folder / f"{name}.dump"


def get_manifest_file(folder: Path, name: str) -> Path:
    """Return the path of a manifest."""
    return folder / f"{name}.json"


def list_backups(folder: Path) -> list[str]:
    """Return the names of all complete backups, oldest first. A manifest is written last."""
    return sorted(path.stem for path in folder.glob("*.json") if NAME_PATTERN.fullmatch(path.stem))


def read_manifest(folder: Path, name: str) -> BackupManifest:
    """Read the manifest of a backup. Raises `BackupError` if it is missing or damaged."""
    if not NAME_PATTERN.fullmatch(name):
        raise BackupError(f"{name!r} is no name of a backup: see `shopassist backup list`.")
    try:
        manifest = BackupManifest.model_validate_json(get_manifest_file(folder, name).read_bytes())
    except FileNotFoundError:
        raise BackupError(f"There is no backup {name} in {folder}.") from None
    except (OSError, ValidationError):
        raise BackupError(
            f"The manifest of backup {name} cannot be read or is damaged: make a new backup, or name another one that "
            "`shopassist backup list` shows."
        ) from None
    if manifest.name != name:
        raise BackupError(f"The manifest of backup {name} is that of {manifest.name}.")
    return manifest


def inspect_backup(folder: Path, name: str) -> tuple[BackupManifest | None, str]:
    """Return the manifest of a backup, if it can be read, and the state at a glance: the dump's content is not read."""
    try:
        manifest = read_manifest(folder, name)
    except BackupError:
        return None, "damaged"
    try:
        is_whole = get_dump_file(folder, name).stat().st_size == manifest.size
    except OSError:
        return manifest, "missing"
    return manifest, WHOLE if is_whole else "cut off"


def find_last_verified(folder: Path) -> tuple[datetime, str] | None:
    """Return when a backup was last verified, and its name; None if none was."""
    found = []
    for name in list_backups(folder):
        with suppress(BackupError):
            if verified_at := read_manifest(folder, name).verified_at:
                found.append((verified_at, name))
    return max(found, default=None)


def check_dump(folder: Path, manifest: BackupManifest) -> None:
    """Raise `BackupError` if a dump is missing, cut off, altered, or of a newer schema than this version."""
    revision, known = manifest.contents.revision, list_known_revisions()
    if revision not in known:
        raise BackupError(
            f"Backup {manifest.name} is of revision {revision}, which this version does not know (it knows up to "
            f"{known[-1]}): use the newer version."
        )
    file = get_dump_file(folder, manifest.name)
    try:
        size = file.stat().st_size
        digest = hash_file(file)
    except OSError:
        raise BackupError(f"The dump of backup {manifest.name} is missing or cannot be read.") from None
    if size != manifest.size:
        raise BackupError(f"The dump of backup {manifest.name} has {size} bytes of {manifest.size}: it is cut off.")
    if digest != manifest.sha256:
        raise BackupError(f"The dump of backup {manifest.name} is damaged: its SHA-256 is another one.")


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def count_contents(connection: asyncpg.Connection) -> DatabaseContents:
    """Count the contents of a database. Raises asyncpg's errors."""
    names = [row["name"] for row in await connection.fetch(TABLES_QUERY)]
    queries = {name: await statements.quote(connection, "SELECT count(*) FROM %s", name) for name in names}
    return DatabaseContents(
        revision=await connection.fetchval(REVISION_QUERY),
        rows={name: await connection.fetchval(query) for name, query in queries.items()},
        ledger_sum=await connection.fetchval(LEDGER_SUM_QUERY),
        balance_sum=await connection.fetchval(BALANCE_SUM_QUERY),
    )


async def create_backup(dsn: URL, folder: Path, recipient: str | None) -> BackupManifest:
    """Back up a database into `folder`, encrypted for `recipient` (an age public key) if it is given.

    Raises `BackupError`, also if it could not be restored, and `StartupError` if the database cannot be reached; then
    no backup is left behind.
    """
    key = parse_recipient(recipient)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"
    dump = get_dump_file(folder, name)
    async with _open_snapshot(dsn) as (snapshot, contents, connection):
        version = int(await connection.fetchval("SHOW server_version_num"))
        programs = await asyncio.to_thread(find_programs, dsn, version // 10000)
        rights = await read_rights(connection)
        try:
            await asyncio.to_thread(write_dump, dsn, programs, snapshot, dump, key)
            size, digest = dump.stat().st_size, await asyncio.to_thread(hash_file, dump)
        except OSError as error:
            raise BackupError(f"The backup cannot be written to {folder}: {error.strerror}.") from error
    manifest = BackupManifest(
        name=name,
        created_at=now,
        server_version=version,
        contents=contents,
        encrypted=key is not None,
        size=size,
        sha256=digest,
        dumped_by=programs.major,
        rights=rights,
    )
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: BackupManifest) -> None:
    """Write or replace the manifest of a backup. Raises `BackupError`."""
    with write_private_file(get_manifest_file(folder, manifest.name), BackupError) as file:
        file.write(manifest.model_dump_json(indent=1).encode() + b"\n")


@asynccontextmanager
async def _open_snapshot(dsn: URL) -> AsyncIterator[tuple[str, DatabaseContents, asyncpg.Connection]]:
    """Export a snapshot for the block; give its name, its contents and the connection that holds it."""
    async with connect(dsn) as connection:
        await connection.execute("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
                yield snapshot, await count_contents(connection), connection
        except asyncpg.UndefinedTableError:
            raise BackupError("The database has no schema of this product: there is nothing to back up.") from None
        except asyncpg.InsufficientPrivilegeError as error:
            raise BackupError(f"The role may not read everything ({error.args[0]}): back up as the owner.") from None


def prune_backups(folder: Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` backups, and old files of failed ones; return the removed names."""
    surplus = list_backups(folder)[:-keep]
    for name in surplus:
        get_manifest_file(folder, name).unlink(missing_ok=True)  # first: a dump without a manifest is no backup
        get_dump_file(folder, name).unlink(missing_ok=True)
    complete = set(list_backups(folder))
    for path in [*folder.glob("*.dump"), *folder.glob("*.partial")]:
        if path.stem not in complete and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
            path.unlink(missing_ok=True)
    return surplus


def get_backup_folder(settings: Settings) -> Path:
    """Return the folder of the backups."""
    return settings.backup.folder or settings.database.data_folder / "backups"


async def back_up(settings: Settings) -> BackupManifest:
    """Make a backup and remove the oldest ones beyond BACKUP_KEEP. Raises `BackupError` and `StartupError`."""
    folder, config = get_backup_folder(settings), settings.backup
    if config.recipient and config.identity:
        public = parse_identity(config.identity.get_secret_value()).to_public()
        if str(public) != str(parse_recipient(config.recipient)):
            raise BackupError(
                "BACKUP_IDENTITY is not the private key of BACKUP_RECIPIENT: set the other half of the pair."
            )
    manifest = await create_backup(await find_source(settings), folder, settings.backup.recipient)
    prune_backups(folder, settings.backup.keep)
    return manifest


async def verify_backup(url: URL, folder: Path, name: str, identity: str | None) -> DatabaseContents:
    """Restore a backup into a scratch database, compare it with its manifest, and drop it; return its contents.

    Raises `BackupError` if the backup is not complete, and `StartupError`.
    """
    async with _restore_beside(url, folder, name, identity) as (scratch, manifest):
        await _drop_database(url, scratch)
    return manifest.contents


async def restore_backup(
    url: URL,
    folder: Path,
    name: str,
    identity: str | None,
    finish: FinishRestore,
    provision_again: ProvisionAgain | None = None,
) -> str:
    """Replace the database of `url` with a backup; return the new name of the old database.

    The backup is first restored into a new database and verified. `finish` prepares that database, given its DSN. Then
    it gets the owners, grants and settings of the old one, and `provision_again` is given its connection and these. The
    swap ends all connections to the old one. Raises `BackupError` and `StartupError`.
    """
    async with _restore_beside(url, folder, name, identity) as (new, manifest):
        target = url.set(database=new)
        await finish(target)
        async with connect(url) as old:
            replaced = await read_rights(old)
        async with connect(target) as connection:
            try:
                await restore_rights(connection, replaced, manifest.rights)
                if provision_again:
                    await provision_again(connection, replaced)
            except asyncpg.PostgresError as error:
                raise BackupError(
                    f"Owners, grants and settings cannot be restored, and nothing was changed: {error.args[0]}."
                ) from None
        return await _swap_databases(url, new)


@asynccontextmanager
async def _restore_beside(
    url: URL, folder: Path, name: str, identity: str | None
) -> AsyncIterator[tuple[str, BackupManifest]]:
    """Restore into a new database; give its name and the manifest. It is dropped if anything fails."""
    manifest = read_manifest(folder, name)
    if manifest.encrypted and identity is None:
        raise BackupError(f"Backup {manifest.name} is encrypted: set BACKUP_IDENTITY to the private key.")
    key = parse_identity(identity) if manifest.encrypted and identity else None
    await asyncio.to_thread(check_dump, folder, manifest)
    new = f"{(url.database or '')[: MAX_NAME_LENGTH - 18]}_restored_{uuid4().hex[:8]}"
    async with _connect_as_administrator(url) as connection:
        version = int(await connection.fetchval("SHOW server_version_num"))
        if version // 10000 < manifest.server_version // 10000:
            raise BackupError(
                f"The backup is of PostgreSQL {manifest.server_version // 10000} and the server is older "
                f"({version // 10000}): restore it on a server of that version or later."
            )
        programs = await asyncio.to_thread(find_programs, url, version // 10000, manifest.dumped_by)
        await create_database_like(connection, url.database or "", new)
    try:
        target = url.set(database=new)
        await asyncio.to_thread(restore_dump, target, programs, get_dump_file(folder, name), key)
        async with connect(target) as connection:
            found = await count_contents(connection)
            await connection.execute("ANALYZE")
        _require_equal_contents(manifest, found)
        yield new, manifest
    except BaseException:
        await _drop_database(url, new)
        raise


def _require_equal_contents(manifest: BackupManifest, found: DatabaseContents) -> None:
    expected, actual = (
        {**contents.model_dump(exclude={"rows"}), **{f"rows in {name}": rows for name, rows in contents.rows.items()}}
        for contents in (manifest.contents, found)
    )
    differences = [
        f"{name}: {actual.get(name)} instead of {expected.get(name)}"
        for name in dict.fromkeys([*expected, *actual])
        if actual.get(name) != expected.get(name)
    ]
    if differences:
        raise BackupError(f"Backup {manifest.name} does not hold what its manifest says: {'; '.join(differences)}.")


async def _swap_databases(url: URL, new: str) -> str:
    """Rename the database `new` to the name of `url`'s; return the new name of that one."""
    name = url.database or ""
    now = datetime.now(UTC)
    instant = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 10_000:02}Z"  # two restores may end in one second
    old_name = f"{name[: MAX_NAME_LENGTH - 26]}_before_{instant}"
    async with _connect_as_administrator(url) as connection:
        await statements.execute_quoted(connection, "ALTER DATABASE %I WITH ALLOW_CONNECTIONS false", name)
        try:
            await _rename_database(connection, name, old_name)
            try:
                await _rename_database(connection, new, name)
            except asyncpg.PostgresError:
                await _rename_database(connection, old_name, name)
                raise
        except asyncpg.PostgresError as error:
            await statements.execute_quoted(connection, "ALTER DATABASE %I WITH ALLOW_CONNECTIONS true", name)
            raise BackupError(f"The databases could not be swapped, and all is as it was: {error.args[0]}.") from None
        await statements.execute_quoted(connection, "ALTER DATABASE %I WITH ALLOW_CONNECTIONS true", old_name)
    return old_name


async def _rename_database(connection: asyncpg.Connection, name: str, to: str) -> None:
    await connection.execute(TERMINATE_SESSIONS, name)
    await statements.execute_quoted(connection, "ALTER DATABASE %I RENAME TO %I", name, to)


async def _drop_database(url: URL, name: str) -> None:
    async with _connect_as_administrator(url) as connection:
        await statements.execute_quoted(connection, "DROP DATABASE IF EXISTS %I WITH (FORCE)", name)


@asynccontextmanager
async def _connect_as_administrator(url: URL) -> AsyncIterator[asyncpg.Connection]:
    """Connect to the maintenance database. Raises `BackupError` if the role lacks a privilege."""
    async with connect(url.set(database=MAINTENANCE_DATABASE)) as connection:
        try:
            yield connection
        except asyncpg.InsufficientPrivilegeError as error:
            raise BackupError(
                f"The role may not do this ({error.args[0]}): set DATABASE_ADMIN_URL to the link of an administrator."
            ) from None
