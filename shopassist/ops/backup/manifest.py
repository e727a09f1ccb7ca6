"""The manifest of a backup: what the dump must contain, and the checks against it."""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shopassist.db import statements
from shopassist.db.migrate import list_known_revisions
from shopassist.errors import BackupError

CHUNK_BYTES = 1 << 20
NAME_PATTERN = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")


class DatabaseContents(BaseModel):
    """Schema revision, row counts by table, and the sums that must agree."""

    model_config = ConfigDict(frozen=True)

    revision: str
    rows: dict[str, int]
    ledger_sum: int = Field(description="of all transactions, in credits")
    balance_sum: int = Field(description="of all accounts, available and held, in credits")


class BackupManifest(BaseModel):
    """A backup: properties of the dump file of the same name, and the expected contents."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN.pattern}$")]
    created_at: datetime
    server_version: int = Field(description="PostgreSQL's `server_version_num`")
    contents: DatabaseContents
    encrypted: bool
    size: int = Field(description="of the dump's file, bytes")
    sha256: str = Field(description="of the dump's file, hexadecimal")


def build_name(now: datetime) -> str:
    """Return a name that sorts by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:6]}"


def get_dump_file(folder: Path, name: str) -> Path:
    """Return the path of a dump."""
    return folder / f"{name}.dump"


def get_manifest_file(folder: Path, name: str) -> Path:
    """Return the path of a manifest."""
    return folder / f"{name}.json"


def list_backups(folder: Path) -> list[str]:
    """Return the names of all complete backups, oldest first. A manifest is written last."""
    return sorted(path.stem for path in folder.glob("*.json") if NAME_PATTERN.fullmatch(path.stem))


def read_manifest(folder: Path, name: str) -> BackupManifest:
    """Read the manifest of a backup. Raises `BackupError` if it is missing or damaged."""
    if not NAME_PATTERN.fullmatch(name):
        raise BackupError(f"{name!r} is no name of a backup: see `shopassist backup list`.")
    try:
        manifest = BackupManifest.model_validate_json(get_manifest_file(folder, name).read_bytes())
    except FileNotFoundError:
        raise BackupError(f"There is no backup {name} in {folder}.") from None
    except (OSError, ValidationError):
        raise BackupError(f"The manifest of backup {name} cannot be read or is damaged.") from None
    if manifest.name != name:
        raise BackupError(f"The manifest of backup {name} is that of {manifest.name}.")
    return manifest


def check_dump(folder: Path, manifest: BackupManifest) -> None:
    """Raise `BackupError` if a dump is missing, cut off, altered, or of a newer schema than this version."""
    revision, known = manifest.contents.revision, list_known_revisions()
    if revision not in known:
        raise BackupError(
            f"Backup {manifest.name} is of revision {revision}, which this version does not know (it knows up to "
            f"{known[-1]}): use the newer version."
        )
    file = get_dump_file(folder, manifest.name)
    try:
        size = file.stat().st_size
        digest = hash_file(file)
    except OSError:
        raise BackupError(f"The dump of backup {manifest.name} is missing or cannot be read.") from None
    if size != manifest.size:
        raise BackupError(f"The dump of backup {manifest.name} has {size} bytes of {manifest.size}: it is cut off.")
    if digest != manifest.sha256:
        raise BackupError(f"The dump of backup {manifest.name} is damaged: its SHA-256 is another one.")


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Raises `OSError`."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


TABLES_QUERY = """
SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1
"""
REVISION_QUERY = "SELECT version_num FROM alembic_version"
LEDGER_SUM_QUERY = "SELECT COALESCE(sum(amount), 0)::bigint FROM credit_transactions"
BALANCE_SUM_QUERY = "SELECT COALESCE(sum(available_credits::bigint + held_credits), 0)::bigint FROM user_credits"


async def count_contents(connection: asyncpg.Connection) -> DatabaseContents:
    """Count the contents of a database. Raises asyncpg's errors."""
    names = [row["name"] for row in await connection.fetch(TABLES_QUERY)]
    return DatabaseContents(
        revision=await connection.fetchval(REVISION_QUERY),
        rows={name: await statements.fetch_quoted_value(connection, "SELECT count(*) FROM %s", name) for name in names},
        ledger_sum=await connection.fetchval(LEDGER_SUM_QUERY),
        balance_sum=await connection.fetchval(BALANCE_SUM_QUERY),
    )


def find_differences(expected: DatabaseContents, found: DatabaseContents) -> list[str]:
    """Return a phrase for each difference."""
    pairs = {
        what: (getattr(expected, what), getattr(found, what)) for what in ("revision", "ledger_sum", "balance_sum")
    }
    for table in sorted(expected.rows.keys() | found.rows.keys()):
        pairs[f"rows in {table}"] = expected.rows.get(table), found.rows.get(table)
    return [f"{what}: {is_} instead of {should}" for what, (should, is_) in pairs.items() if is_ != should]
