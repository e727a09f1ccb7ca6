"""What a backup says of itself, beside the dump."""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shopassist.db.migrate import known_revisions
from shopassist.errors import BackupError

CHUNK = 1 << 20
NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")


class Contents(BaseModel):
    """What a database holds: its schema's revision, rows by table, and the sums that must agree."""

    model_config = ConfigDict(frozen=True)

    revision: str
    rows: dict[str, int]
    ledger_sum: int = Field(description="of all transactions, in credits")
    balance_sum: int = Field(description="of all accounts, available and held, in credits")


class Manifest(BaseModel):
    """A backup: the dump in the file of the same name, and what must be in it."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    created_at: datetime
    server_version: int = Field(description="PostgreSQL's `server_version_num`")
    contents: Contents
    encrypted: bool
    size: int = Field(description="of the dump's file, bytes")
    sha256: str = Field(description="of the dump's file, hexadecimal")


def new_name(now: datetime) -> str:
    """A name that sorts by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


def dump_file(folder: Path, name: str) -> Path:
    """Where the dump of a backup is."""
    return folder / f"{name}.dump"


def manifest_file(folder: Path, name: str) -> Path:
    """Where the manifest of a backup is."""
    return folder / f"{name}.json"


def every(folder: Path) -> list[str]:
    """The names of all whole backups, oldest first. The manifest is written last."""
    return sorted(path.stem for path in folder.glob("*.json") if NAME.fullmatch(path.stem))


def read(folder: Path, name: str) -> Manifest:
    """The manifest of a backup. Raises `BackupError` when there is none or it is damaged."""
    if not NAME.fullmatch(name):
        raise BackupError(f"{name!r} is no name of a backup: see `shopassist backup list`.")
    try:
        manifest = Manifest.model_validate_json(manifest_file(folder, name).read_bytes())
    except FileNotFoundError:
        raise BackupError(f"There is no backup {name} in {folder}.") from None
    except (OSError, ValidationError):
        raise BackupError(f"The manifest of backup {name} cannot be read or is damaged.") from None
    if manifest.name != name:
        raise BackupError(f"The manifest of backup {name} is that of {manifest.name}.")
    return manifest


def refuse_unfit(folder: Path, manifest: Manifest) -> None:
    """Raise `BackupError` for a dump that is missing, cut off or altered, or of a newer schema than this code's."""
    revision, known = manifest.contents.revision, known_revisions()
    if revision not in known:
        raise BackupError(
            f"Backup {manifest.name} is of revision {revision}, which this version does not know (it knows up to "
            f"{known[-1]}): use the newer version."
        )
    file = dump_file(folder, manifest.name)
    try:
        size = file.stat().st_size
        digest = sha256_of(file)
    except OSError:
        raise BackupError(f"The dump of backup {manifest.name} is missing or cannot be read.") from None
    if size != manifest.size:
        raise BackupError(f"The dump of backup {manifest.name} has {size} bytes of {manifest.size}: it is cut off.")
    if digest != manifest.sha256:
        raise BackupError(f"The dump of backup {manifest.name} is damaged: its SHA-256 is another one.")


def sha256_of(file: Path) -> str:
    """The digest of a file, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
