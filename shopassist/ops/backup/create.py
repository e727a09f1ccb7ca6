"""Creates backups: counts and dumps one snapshot, encrypts the dump, and removes old backups."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import asyncpg
import pyrage
from sqlalchemy import URL

from shopassist.db.dsn import require_session_dsn
from shopassist.db.migrate import connect
from shopassist.errors import BackupError
from shopassist.ops.backup.manifest import (
    CHUNK_BYTES,
    BackupManifest,
    DatabaseContents,
    build_name,
    count_contents,
    get_dump_file,
    get_manifest_file,
    hash_file,
    list_backups,
)
from shopassist.ops.backup.pg_tools import build_environment, find_program
from shopassist.settings import Settings

LEFTOVER_SECONDS = 24 * 3600


async def create_backup(dsn: URL, folder: Path, recipient: str | None) -> BackupManifest:
    """Back up a database into `folder`, encrypted for `recipient` (an age public key) if it is given.

    Raises `BackupError`, and `StartupError` if the database cannot be reached; then no backup is left behind.
    """
    key = parse_recipient(recipient)
    now = datetime.now(UTC)
    name = build_name(now)
    dump = get_dump_file(folder, name)
    async with _open_snapshot(dsn) as (snapshot, contents, version):
        pg_dump = find_program("pg_dump", dsn, version // 10000)
        command = [pg_dump, "--format=custom", f"--snapshot={snapshot}", "--no-password"]
        try:
            await asyncio.to_thread(_dump, command, build_environment(dsn), dump, key)
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
    )
    _write_durably(get_manifest_file(folder, name), manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


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


def parse_recipient(text: str | None) -> pyrage.x25519.Recipient | None:
    """Parse a public key. Raises `BackupError`."""
    if text is None:
        return None
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise BackupError("BACKUP_RECIPIENT is no public key of age (age1…).") from None


@asynccontextmanager
async def _open_snapshot(dsn: URL) -> AsyncIterator[tuple[str, DatabaseContents, int]]:
    """Export a snapshot for the block; give its name, its contents and the server's version."""
    async with connect(dsn) as connection:
        await connection.execute("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
                contents = await count_contents(connection)
                version = int(await connection.fetchval("SHOW server_version_num"))
                yield snapshot, contents, version
        except asyncpg.UndefinedTableError:
            raise BackupError("The database has no schema of this product: there is nothing to back up.") from None


def _dump(command: list[str], variables: dict[str, str], file: Path, key: pyrage.x25519.Recipient | None) -> None:
    """Write the output of `pg_dump` to a file, encrypted with `key`. Raises `BackupError` and `OSError`."""
    partial = file.with_suffix(".partial")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryFile() as errors,
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output,
        ):
            process = subprocess.Popen(  # noqa: S603 - the command is ours
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=variables
            )
            with process:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                if key is None:
                    shutil.copyfileobj(process.stdout, output, CHUNK_BYTES)
                else:
                    pyrage.encrypt_io(process.stdout, output, [key])
            if process.returncode:
                raise BackupError(f"pg_dump failed: {read_last_line(errors)}")
            output.flush()
            os.fsync(output.fileno())
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)


def read_last_line(errors: IO[bytes]) -> str:
    """Return the last line of a program's error output. It may name tables but contains no rows."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _write_durably(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".partial")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    temporary.rename(file)
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def get_backup_folder(settings: Settings) -> Path:
    """Return the folder of the backups."""
    return settings.backup.folder or settings.database.data_folder / "backups"


async def back_up(settings: Settings) -> BackupManifest:
    """Make a backup and remove the oldest ones beyond BACKUP_KEEP. Raises `BackupError` and `StartupError`."""
    folder = get_backup_folder(settings)
    manifest = await create_backup(require_session_dsn(settings), folder, settings.backup.recipient)
    prune_backups(folder, settings.backup.keep)
    return manifest
