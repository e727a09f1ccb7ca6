"""Who PostgreSQL runs as, and where that account can keep data.

PostgreSQL refuses to run as root. Root therefore lends it an account without rights, which must be able to reach
its data folder; an ordinary user runs it as themselves.
"""

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from shopassist.errors import StartupError

CLUSTER_NAME = "postgresql"
_SHARED_DATA = Path("/var/lib/shopassist")
_UNPRIVILEGED = ("postgres", "nobody")
_ROOT = 0


@dataclass(frozen=True)
class Account:
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


def path_key(path: Path) -> str:
    """A short name for a path, for folders that many projects share."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def choose_place(wished: Path) -> tuple[Path, Account]:
    """The folder that is really used, and the account PostgreSQL runs as in it.

    Data stays where it is: only a new folder that the account could not enter is moved below `/var/lib/shopassist`.
    Raises StartupError when existing data cannot be served or no account is left.
    """
    wished = wished.resolve()
    if os.geteuid() != _ROOT:
        return wished, Account.of(os.geteuid())
    shared = _SHARED_DATA.resolve() / path_key(wished)
    for folder in (wished, shared):
        if (folder / CLUSTER_NAME).exists():
            return folder, _owner(folder)
    account = _unprivileged()
    return (wished if account.can_enter(wished) else shared), account


def _owner(folder: Path) -> Account:
    cluster = folder / CLUSTER_NAME
    account = Account.of(cluster.stat().st_uid)
    if account.user == _ROOT:
        raise StartupError(
            f"The data folder {cluster} belongs to root, as whom PostgreSQL does not run: give it to another account "
            f"(chown -R {_unprivileged().name} {cluster})."
        )
    if not account.can_enter(folder):
        raise StartupError(
            f"The data folder {cluster} belongs to {account.name}, who cannot enter the folders above it: allow that "
            "(chmod o+x) or move the data."
        )
    return account


def _unprivileged() -> Account:
    for name in _UNPRIVILEGED:
        try:
            return Account.of(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    raise StartupError(
        "PostgreSQL does not run as root and there is no account postgres or nobody to lend it: "
        "start this as an ordinary user or set DATABASE_URL."
    )
