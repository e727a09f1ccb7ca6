"""Verifies and restores backups, always into a new database first."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from uuid import uuid4

import asyncpg
import pyrage
from sqlalchemy import URL

from shopassist.db import statements
from shopassist.db.migrate import connect
from shopassist.errors import BackupError
from shopassist.ops.backup.create import read_last_line
from shopassist.ops.backup.manifest import (
    CHUNK_BYTES,
    BackupManifest,
    DatabaseContents,
    check_dump,
    count_contents,
    find_differences,
    get_dump_file,
    read_manifest,
)
from shopassist.ops.backup.pg_tools import build_environment, find_program

MAINTENANCE_DATABASE = "postgres"
"""The database to connect to while others are created, renamed and dropped."""

MAX_NAME_LENGTH = 63
TERMINATE_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()
"""
FinishRestore = Callable[[URL], Awaitable[object]]


async def verify_backup(url: URL, folder: Path, name: str, identity: str | None) -> DatabaseContents:
    """Restore a backup into a scratch database, compare it with its manifest, and drop it; return its contents.

    Raises `BackupError` if the backup is not complete, and `StartupError`.
    """
    async with _restore_beside(url, folder, name, identity) as (scratch, contents):
        await _drop_database(url, scratch)
        return contents


async def restore_backup(url: URL, folder: Path, name: str, identity: str | None, finish: FinishRestore) -> str:
    """Replace the database of `url` with a backup; return the new name of the old database.

    The backup is first restored into a new database and verified. `finish` prepares that database, given its DSN. The
    swap then ends all connections to the old one. Raises `BackupError` and `StartupError`.
    """
    async with _restore_beside(url, folder, name, identity) as (new, _):
        await finish(url.set(database=new))
        return await _swap_databases(url, new)


@asynccontextmanager
async def _restore_beside(
    url: URL, folder: Path, name: str, identity: str | None
) -> AsyncIterator[tuple[str, DatabaseContents]]:
    """Restore into a new database; give its name and contents. It is dropped if anything fails."""
    manifest = read_manifest(folder, name)
    key = _parse_identity(identity, manifest)
    await asyncio.to_thread(check_dump, folder, manifest)
    new = f"{(url.database or '')[: MAX_NAME_LENGTH - 18]}_restored_{uuid4().hex[:8]}"
    async with _connect_as_administrator(url) as connection:
        version = int(await connection.fetchval("SHOW server_version_num"))
        if version // 10000 < manifest.server_version // 10000:
            raise BackupError(
                f"The backup is of PostgreSQL {manifest.server_version // 10000} and the server is older "
                f"({version // 10000}): restore it on a server of that version or later."
            )
        pg_restore = find_program("pg_restore", url, version // 10000)
        await statements.execute_quoted(connection, "CREATE DATABASE %I TEMPLATE template0", new)
    try:
        target = url.set(database=new)
        command = [pg_restore, "--format=custom", "--no-owner", "--no-acl", "--exit-on-error", "--single-transaction"]
        command += ["--no-password", "--clean", "--if-exists", "--dbname", new]
        await asyncio.to_thread(_run_pg_restore, command, build_environment(target), get_dump_file(folder, name), key)
        async with connect(target) as connection:
            found = await count_contents(connection)
            await connection.execute("ANALYZE")
        require_equal_contents(manifest, found)
        yield new, found
    except BaseException:
        await _drop_database(url, new)
        raise


def require_equal_contents(manifest: BackupManifest, found: DatabaseContents) -> None:
    """Raise `BackupError` if the contents differ from the manifest."""
    if differences := find_differences(manifest.contents, found):
        raise BackupError(f"Backup {manifest.name} does not hold what its manifest says: {'; '.join(differences)}.")


async def _swap_databases(url: URL, new: str) -> str:
    """Rename the database `new` to the name of `url`'s; return the new name of that one."""
    name = url.database or ""
    old_name = f"{name[: MAX_NAME_LENGTH - 24]}_before_{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
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
    try:
        async with connect(url.set(database=MAINTENANCE_DATABASE)) as connection:
            yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise BackupError(
            f"The role may not do this ({error.args[0]}): set DATABASE_ADMIN_URL to the link of an administrator."
        ) from None


def _parse_identity(text: str | None, manifest: BackupManifest) -> pyrage.x25519.Identity | None:
    if not manifest.encrypted:
        return None
    if text is None:
        raise BackupError(f"Backup {manifest.name} is encrypted: set BACKUP_IDENTITY to the private key.")
    secret = next((line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")), "")
    try:
        return pyrage.x25519.Identity.from_str(secret)
    except pyrage.IdentityError:
        raise BackupError("BACKUP_IDENTITY is no private key of age (AGE-SECRET-KEY-…).") from None


def _run_pg_restore(
    command: list[str], variables: dict[str, str], file: Path, key: pyrage.x25519.Identity | None
) -> None:
    """Run `pg_restore` on a dump. Raises `BackupError`."""
    with tempfile.TemporaryFile() as errors, file.open("rb") as dump:
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=variables
        )
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        failure = _pipe_dump(dump, process.stdin, key)
        if process.wait() or failure:
            raise BackupError(failure or f"pg_restore failed: {read_last_line(errors)}")


def _pipe_dump(dump: IO[bytes], stdin: IO[bytes], key: pyrage.x25519.Identity | None) -> str | None:
    """Write the dump to `pg_restore`; return the reason if that fails."""
    try:
        if key is None:
            shutil.copyfileobj(dump, stdin, CHUNK_BYTES)
        else:
            pyrage.decrypt_io(dump, stdin, [key])
    except pyrage.DecryptError:
        return "The dump cannot be decrypted with BACKUP_IDENTITY."
    except OSError:
        return None  # pg_restore ended first and prints the reason
    finally:
        with suppress(BrokenPipeError):
            stdin.close()
    return None
