"""Runs `pg_dump` and `pg_restore`; encrypts and decrypts dumps."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyrage
from sqlalchemy import URL

from shopassist.db.dsn import get_hosts
from shopassist.db.embedded.programs import find_binaries
from shopassist.errors import BackupError, StartupError
from shopassist.ops.files import write_private_file

CHUNK_BYTES = 1 << 20
TLS_MODES = {"require", "verify-ca", "verify-full"}
DEBIAN_FOLDER = Path("/usr/lib/postgresql")
VERSION_PATTERN = re.compile(r" (\d+)")
ERROR_MARK = " error: "
NEWER_FORMAT = "unsupported version"
TIMEOUT_SINCE = 17
"""Since this version dumps and pg_restore set `transaction_timeout`, which older servers refuse."""

LINK_VARIABLES = {
    "ssl": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "passfile": "PGPASSFILE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""Variables of libpq by parameter of the link."""


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with `pg_dump` and `pg_restore`."""

    folder: Path
    major: int
    has_tls: bool = True


def choose_programs(
    found: Iterable[Programs], server: int, needs_tls: bool = False, dumped_by: int = 0
) -> Programs | None:
    """Return the oldest programs that dump and restore a server of a major version, and read what `dumped_by` wrote.

    `pg_dump` refuses newer servers, and `pg_restore` refuses dumps of a newer `pg_dump`. Of one version prefer those
    with TLS. Return None if there are none.
    """
    fitting = [
        one
        for one in found
        if one.major >= max(server, dumped_by)
        and (one.major < TIMEOUT_SINCE or server >= TIMEOUT_SINCE)
        and (one.has_tls or not needs_tls)
    ]
    return min(fitting, key=lambda one: (one.major, not one.has_tls), default=None)


def find_programs(url: URL, server: int, dumped_by: int = 0) -> Programs:
    """Return the programs of this machine for a server of a major version and a dump. Raises `BackupError`."""
    needs_tls = str(url.query.get("ssl", "")) in TLS_MODES
    found = _list_programs()
    if chosen := choose_programs(found, server, needs_tls, dumped_by):
        return chosen
    if dumped_by >= TIMEOUT_SINCE > server:
        raise BackupError(
            f"pg_dump {dumped_by} wrote this backup: it can be restored on PostgreSQL {TIMEOUT_SINCE} or later, and "
            f"the server is {server}."
        )
    lowest, last = max(server, dumped_by), TIMEOUT_SINCE - 1
    to_last = str(last) if lowest == last else f"{lowest} to {last}"
    present = ", ".join(sorted({f"{one.major}{'' if one.has_tls else ' without TLS'}" for one in found})) or "none"
    raise BackupError(
        f"The server is PostgreSQL {server}: dumping and restoring{' over TLS' if needs_tls else ''} needs pg_dump and "
        f"pg_restore of version {f'{lowest} or later' if lowest > last else to_last} on PATH or in "
        f"{DEBIAN_FOLDER} (Debian: postgresql-client-{lowest}). Found: {present}."
    )


def _list_programs() -> list[Programs]:
    """Return the programs of the embedded PostgreSQL, which have no TLS, of PATH and of Debian's packages."""
    found = []
    with suppress(StartupError):
        own = find_binaries()
        if not own.folder.is_relative_to(DEBIAN_FOLDER):
            found.append(Programs(own.folder, own.version, has_tls=False))
    # Debian's pg_dump on PATH is a script that chooses a version by itself; resolved, it has no pg_restore beside it.
    on_path = [Path(folder) / "pg_dump" for folder in os.get_exec_path()]
    folders = [path.resolve().parent for path in (*on_path, *DEBIAN_FOLDER.glob("*/bin/pg_dump")) if path.exists()]
    own_folders = {one.folder.resolve() for one in found}
    found += [
        Programs(folder, _get_major_version(folder)) for folder in dict.fromkeys(folders) if folder not in own_folders
    ]
    return [one for one in found if one.major and (one.folder / "pg_restore").exists()]


def _get_major_version(folder: Path) -> int:
    try:
        result = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - found above
    except OSError:
        return 0
    match = VERSION_PATTERN.search(result.stdout)
    return int(match[1]) if match else 0


def build_environment(url: URL) -> dict[str, str]:
    """Return the environment that connects libpq programs. Every process could read their arguments."""
    hosts = get_hosts(url)
    variables = {
        "PGHOST": ",".join(host.name for host in hosts),
        "PGPORT": ",".join(str(host.port) for host in hosts),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        **{variable: str(url.query.get(name, "")) for name, variable in LINK_VARIABLES.items()},
        "PGAPPNAME": "shopassist backup",
        "PGCONNECT_TIMEOUT": "10",
        "PATH": os.defpath,
        "HOME": os.path.expanduser("~"),  # noqa: PTH111 - certificates may be there; pathlib raises if there is none
        "LC_ALL": "C",
    }
    return {name: value for name, value in variables.items() if value}


def write_dump(dsn: URL, programs: Programs, snapshot: str, file: Path, key: pyrage.x25519.Recipient | None) -> None:
    """Dump an exported snapshot of a database into a file, encrypted with `key`. Raises `BackupError` and `OSError`."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [str(programs.folder / "pg_dump"), "--format=custom", f"--snapshot={snapshot}", "--no-password"]
    with tempfile.TemporaryFile() as errors, write_private_file(file, BackupError) as output:
        with subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=build_environment(dsn)
        ) as process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            if key is None:
                shutil.copyfileobj(process.stdout, output, CHUNK_BYTES)
            else:
                pyrage.encrypt_io(process.stdout, output, [key])
        if process.returncode:
            raise BackupError(f"pg_dump failed: {_read_reason(errors)}.")


def restore_dump(dsn: URL, programs: Programs, file: Path, key: pyrage.x25519.Identity | None) -> None:
    """Restore a dump into the database of `dsn`. Raises `BackupError`."""
    command = [str(programs.folder / "pg_restore"), "--format=custom", "--no-owner", "--no-acl"]
    command += ["--exit-on-error", "--single-transaction", "--no-password", "--clean", "--if-exists"]
    command += ["--dbname", str(dsn.database)]
    failure = None
    with tempfile.TemporaryFile() as errors, file.open("rb") as dump:
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, env=build_environment(dsn)
        )
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            with suppress(OSError), process.stdin as stdin:  # when pg_restore ended first, it has printed the reason
                if key is None:
                    shutil.copyfileobj(dump, stdin, CHUNK_BYTES)
                else:
                    pyrage.decrypt_io(dump, stdin, [key])
        except pyrage.DecryptError:
            failure = "The dump cannot be decrypted with BACKUP_IDENTITY."
        if process.wait() or failure:
            reason = _read_reason(errors)
            if NEWER_FORMAT in reason:
                reason += f": pg_dump {programs.major + 1} or later wrote it, restore it on a newer PostgreSQL"
            raise BackupError(failure or f"pg_restore failed: {reason}.")


def _read_reason(errors: IO[bytes]) -> str:
    """Return the first error in a program's output; the lines after it may hold the statement, or rows."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return next((line.partition(ERROR_MARK)[2] for line in lines if ERROR_MARK in line), lines[-1])


def parse_recipient(text: str | None) -> pyrage.x25519.Recipient | None:
    """Parse a public key. Raises `BackupError`."""
    if text is None:
        return None
    try:
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise BackupError("BACKUP_RECIPIENT is no public key of age (age1…).") from None


def parse_identity(text: str) -> pyrage.x25519.Identity:
    """Parse a private key, which may be preceded by comments. Raises `BackupError`."""
    secret = next((line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")), "")
    try:
        return pyrage.x25519.Identity.from_str(secret)
    except pyrage.IdentityError:
        raise BackupError("BACKUP_IDENTITY is no private key of age (AGE-SECRET-KEY-…).") from None
