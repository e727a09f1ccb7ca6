"""Creates backups: counts and dumps one snapshot, encrypts the dump, and removes old backups."""

import asyncio
import hashlib
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
    list_backups,
)
from shopassist.ops.backup.pg_tools import build_environment, find_program
from shopassist.settings import Settings

LEFTOVER_SECONDS = 24 * 3600


class HashingWriter:
    """A file that is written to, with the SHA-256 and the number of its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        """Nothing has been written."""
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Let the operating system have what was written."""
        self._file.flush()

    def hexdigest(self) -> str:
        """The SHA-256 so far."""
        return self._hash.hexdigest()


async def create_backup(url: URL, folder: Path, recipient: str | None) -> BackupManifest:
    """Back the database of `url` up into `folder`, encrypted for `recipient` (an age public key) if one is given.

    Raises `BackupError`, and `StartupError` when the database cannot be reached; nothing is left behind then.
    """
    key = parse_recipient(recipient)
    now = datetime.now(UTC)
    name = build_name(now)
    async with _open_snapshot(url) as (snapshot, contents, version):
        pg_dump = find_program("pg_dump", url, version // 10000)
        command = [pg_dump, "--format=custom", f"--snapshot={snapshot}", "--no-password"]
        try:
            size, digest = await asyncio.to_thread(
                _dump, command, build_environment(url), get_dump_file(folder, name), key
            )
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
    """Remove all but the newest `keep` backups, and what was left of those that failed; the names removed."""
    surplus = list_backups(folder)[:-keep]
    for name in surplus:
        get_manifest_file(folder, name).unlink(missing_ok=True)  # first: without it the rest is no backup
        get_dump_file(folder, name).unlink(missing_ok=True)
    whole = set(list_backups(folder))
    for path in [*folder.glob("*.dump"), *folder.glob("*.partial")]:
        if path.stem not in whole and time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
            path.unlink(missing_ok=True)
    return surplus


def parse_recipient(text: str | None) -> pyrage.x25519.Recipient | None:
    """The public key. Raises `BackupError`."""
    if text is None:
        return None
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise BackupError("BACKUP_RECIPIENT is no public key of age (age1…).") from None


@asynccontextmanager
async def _open_snapshot(url: URL) -> AsyncIterator[tuple[str, DatabaseContents, int]]:
    """A snapshot that others may use for the length of the block, what it holds, and the server's version."""
    async with connect(url) as connection:
        await connection.execute("SET idle_in_transaction_session_timeout = 0; SET statement_timeout = 0")
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
                contents = await count_contents(connection)
                version = int(await connection.fetchval("SHOW server_version_num"))
                yield snapshot, contents, version
        except asyncpg.UndefinedTableError:
            raise BackupError("The database has no schema of this product: there is nothing to back up.") from None


def _dump(
    command: list[str], variables: dict[str, str], file: Path, key: pyrage.x25519.Recipient | None
) -> tuple[int, str]:
    """Run `pg_dump` into `file`; its size and digest. Raises `BackupError` and `OSError`."""
    partial = file.with_suffix(".partial")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryFile() as said,
            os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened,
        ):
            digest = HashingWriter(opened)
            _run_pg_dump(command, variables, digest, key, said)
            opened.flush()
            os.fsync(opened.fileno())
        partial.rename(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest.size, digest.hexdigest()


def _run_pg_dump(
    command: list[str],
    variables: dict[str, str],
    digest: HashingWriter,
    key: pyrage.x25519.Recipient | None,
    said: IO[bytes],
) -> None:
    """What the command gives, into the file of `digest`. Raises `BackupError` when it fails."""
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=variables
    )
    with process:
        if process.stdout is None:
            raise TypeError
        if key is None:
            shutil.copyfileobj(process.stdout, digest, CHUNK_BYTES)
        else:
            pyrage.encrypt_io(process.stdout, digest, [key])
    if process.returncode:
        raise BackupError(f"pg_dump failed: {read_last_line(said)}")


def read_last_line(said: IO[bytes]) -> str:
    """The last line that a program said, which may name tables but nobody's data."""
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _write_durably(file: Path, content: bytes) -> None:
    temporary = file.with_suffix(".partial")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.rename(file)
    descriptor = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def get_backup_folder(settings: Settings) -> Path:
    """Where backups are kept."""
    return settings.backup.folder or settings.database.data_folder / "backups"


async def back_up(settings: Settings) -> BackupManifest:
    """Make a backup and remove the oldest beyond BACKUP_KEEP. Raises `BackupError` and `StartupError`."""
    folder = get_backup_folder(settings)
    made = await create_backup(require_session_dsn(settings), folder, settings.backup.recipient)
    prune_backups(folder, settings.backup.keep)
    return made
