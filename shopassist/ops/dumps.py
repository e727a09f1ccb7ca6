"""Runs `pg_dump` and `pg_restore`; encrypts and decrypts dumps."""

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
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


def find_program(name: str, url: URL, server_major: int) -> str:
    """Return the path of a `pg_dump` or `pg_restore` that works with this server.

    Those of the embedded PostgreSQL have no TLS. With TLS, and for newer servers, the oldest of the system that is at
    least as new as the server is used. Raises `BackupError` if there is none.
    """
    tls = str(url.query.get("ssl", "")) in TLS_MODES
    try:
        wheel = find_binaries()
    except StartupError:
        wheel = None
    if wheel is not None and not tls and wheel.version >= server_major and Path(wheel.program(name)).exists():
        return wheel.program(name)
    candidates = [path for path in (shutil.which(name), *map(str, DEBIAN_FOLDER.glob(f"*/bin/{name}"))) if path]
    found = {path: _get_major_version(path) for path in candidates}
    fitting = [path for path, major in found.items() if major >= server_major]
    if fitting:
        return min(fitting, key=lambda path: found[path])
    link = " over TLS" if tls else ""
    raise BackupError(
        f"The server is PostgreSQL {server_major}: dumping and restoring{link} needs {name} of version {server_major} "
        f"or later on PATH (Debian: postgresql-client-{server_major})."
    )


def _get_major_version(path: str) -> int:
    result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - found above
    match = VERSION_PATTERN.search(result.stdout)
    return int(match[1]) if match else 0


def build_environment(url: URL) -> dict[str, str]:
    """Return the environment that connects libpq programs. Every process could read their arguments."""
    hosts = get_hosts(url)
    variables = {
        "PGHOST": ",".join(host.name for host in hosts),
        "PGPORT": ",".join(str(host.port) for host in hosts),
        "PGTARGETSESSIONATTRS": str(url.query.get("target_session_attrs", "")),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": str(url.query["ssl"]) if "ssl" in url.query else None,
        "PGSSLROOTCERT": str(url.query["sslrootcert"]) if "sslrootcert" in url.query else None,
        "PGAPPNAME": "shopassist backup",
        "PGCONNECT_TIMEOUT": "10",
        "PATH": os.defpath,
        "LC_ALL": "C",
    }
    return {name: value for name, value in variables.items() if value}


def write_dump(dsn: URL, server_major: int, snapshot: str, file: Path, key: pyrage.x25519.Recipient | None) -> None:
    """Dump an exported snapshot of a database into a file, encrypted with `key`. Raises `BackupError` and `OSError`."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [find_program("pg_dump", dsn, server_major), "--format=custom", f"--snapshot={snapshot}", "--no-password"]
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
            raise BackupError(f"pg_dump failed: {_read_last_line(errors)}")


def restore_dump(dsn: URL, server_major: int, file: Path, key: pyrage.x25519.Identity | None) -> None:
    """Restore a dump into the database of `dsn`. Raises `BackupError`."""
    command = [find_program("pg_restore", dsn, server_major), "--format=custom", "--no-owner", "--no-acl"]
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
            raise BackupError(failure or f"pg_restore failed: {_read_last_line(errors)}")


def _read_last_line(errors: IO[bytes]) -> str:
    """Return the last line of a program's error output. It may name tables but contains no rows."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


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
