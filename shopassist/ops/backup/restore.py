"""Proving and restoring a backup: always into a database of its own first, which is compared with the manifest."""

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

from shopassist.db.migrate import connected
from shopassist.db.postgres import ddl
from shopassist.errors import BackupError
from shopassist.ops.backup.contents import counted, differences
from shopassist.ops.backup.create import reason
from shopassist.ops.backup.manifest import CHUNK, Contents, Manifest, dump_file, read, refuse_unfit
from shopassist.ops.backup.programs import environment, program

MAINTENANCE = "postgres"
"""The database to be connected to while others are made, renamed and dropped."""

LONGEST_NAME = 63
END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()
"""
Finish = Callable[[URL], Awaitable[object]]


async def verify(url: URL, folder: Path, name: str, identity: str | None) -> Contents:
    """Restore a backup into a scratch database of the server of `url`, compare it with its manifest, and drop it.

    What was found there. Raises `BackupError` when the backup is not whole, and `StartupError`.
    """
    async with _restored(url, folder, name, identity) as (scratch, contents):
        await _drop(url, scratch)
        return contents


async def restore(url: URL, folder: Path, name: str, identity: str | None, finish: Finish) -> str:
    """Put a backup in the place of the database of `url`; the name that the old database has from now on.

    Nothing is touched before the backup has been restored beside it and was found whole. `finish` then prepares the
    new database by its link. The swap ends the connections of whoever uses the old one. Raises `BackupError` and
    `StartupError`.
    """
    async with _restored(url, folder, name, identity) as (new, _):
        await finish(url.set(database=new))
        return await _swapped(url, new)


@asynccontextmanager
async def _restored(url: URL, folder: Path, name: str, identity: str | None) -> AsyncIterator[tuple[str, Contents]]:
    """A new database with what was in the backup, and its contents; dropped again when anything goes wrong."""
    manifest = read(folder, name)
    key = _identity_of(identity, manifest)
    await asyncio.to_thread(refuse_unfit, folder, manifest)
    new = f"{(url.database or '')[: LONGEST_NAME - 18]}_restored_{uuid4().hex[:8]}"
    async with _administration(url) as connection:
        version = int(await connection.fetchval("SHOW server_version_num"))
        if version // 10000 < manifest.server_version // 10000:
            raise BackupError(
                f"The backup is of PostgreSQL {manifest.server_version // 10000} and the server is older "
                f"({version // 10000}): restore it on a server of that version or later."
            )
        pg_restore = program("pg_restore", url, version // 10000)
        await ddl.run(connection, "CREATE DATABASE %I TEMPLATE template0", new)
    try:
        target = url.set(database=new)
        command = [pg_restore, "--format=custom", "--no-owner", "--no-acl", "--exit-on-error", "--single-transaction"]
        command += ["--no-password", "--clean", "--if-exists", "--dbname", new]
        await asyncio.to_thread(_fill, command, environment(target), dump_file(folder, name), key)
        async with connected(target) as connection:
            found = await counted(connection)
            await connection.execute("ANALYZE")
        refuse_different(manifest, found)
        yield new, found
    except BaseException:
        await _drop(url, new)
        raise


def refuse_different(manifest: Manifest, found: Contents) -> None:
    """Raise `BackupError` unless that is what the manifest says."""
    if wrong := differences(manifest.contents, found):
        raise BackupError(f"Backup {manifest.name} does not hold what its manifest says: {'; '.join(wrong)}.")


async def _swapped(url: URL, new: str) -> str:
    """Give the database `new` the name of `url`'s; what that one is called now."""
    name = url.database or ""
    old = f"{name[: LONGEST_NAME - 24]}_before_{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    async with _administration(url) as connection:
        await ddl.run(connection, "ALTER DATABASE %I WITH ALLOW_CONNECTIONS false", name)
        try:
            await _rename(connection, name, old)
            try:
                await _rename(connection, new, name)
            except asyncpg.PostgresError:
                await _rename(connection, old, name)
                raise
        except asyncpg.PostgresError as error:
            await ddl.run(connection, "ALTER DATABASE %I WITH ALLOW_CONNECTIONS true", name)
            raise BackupError(f"The databases could not be swapped, and all is as it was: {error.args[0]}.") from None
        await ddl.run(connection, "ALTER DATABASE %I WITH ALLOW_CONNECTIONS true", old)
    return old


async def _rename(connection: asyncpg.Connection, name: str, to: str) -> None:
    await connection.execute(END_OTHERS, name)
    await ddl.run(connection, "ALTER DATABASE %I RENAME TO %I", name, to)


async def _drop(url: URL, name: str) -> None:
    async with _administration(url) as connection:
        await ddl.run(connection, "DROP DATABASE IF EXISTS %I WITH (FORCE)", name)


@asynccontextmanager
async def _administration(url: URL) -> AsyncIterator[asyncpg.Connection]:
    """A connection to no database that is to be changed. Raises `BackupError` when the role may not do it."""
    try:
        async with connected(url.set(database=MAINTENANCE)) as connection:
            yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        raise BackupError(
            f"The role may not do this ({error.args[0]}): set DATABASE_ADMIN_URL to the link of an administrator."
        ) from None


def _identity_of(text: str | None, manifest: Manifest) -> pyrage.x25519.Identity | None:
    if not manifest.encrypted:
        return None
    if text is None:
        raise BackupError(f"Backup {manifest.name} is encrypted: set BACKUP_IDENTITY to the private key.")
    secret = next((line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")), "")
    try:
        return pyrage.x25519.Identity.from_str(secret)
    except pyrage.IdentityError:
        raise BackupError("BACKUP_IDENTITY is no private key of age (AGE-SECRET-KEY-…).") from None


def _fill(command: list[str], variables: dict[str, str], file: Path, key: pyrage.x25519.Identity | None) -> None:
    """Run `pg_restore` on what is in `file`. Raises `BackupError`."""
    with tempfile.TemporaryFile() as said, file.open("rb") as opened:
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, env=variables
        )
        if process.stdin is None:
            raise TypeError
        failure = _feed(opened, process.stdin, key)
        if process.wait():
            raise BackupError(failure or f"pg_restore failed: {reason(said)}")
        if failure:
            raise BackupError(failure)


def _feed(opened: IO[bytes], stdin: IO[bytes], key: pyrage.x25519.Identity | None) -> str | None:
    """Give the dump to `pg_restore`; why it could not be given, or None."""
    try:
        if key is None:
            shutil.copyfileobj(opened, stdin, CHUNK)
        else:
            pyrage.decrypt_io(opened, stdin, [key])
    except pyrage.DecryptError:
        return "The dump cannot be decrypted with BACKUP_IDENTITY."
    except OSError:
        return None  # pg_restore ended first, and says why
    finally:
        with suppress(BrokenPipeError):
            stdin.close()
    return None
