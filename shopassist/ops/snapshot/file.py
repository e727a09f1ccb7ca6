"""The snapshot file: its format, the export into it, and the scan that proves it complete."""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import asyncpg
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import URL

from shopassist.audit.postgres import insert_operator_entry
from shopassist.db import statements
from shopassist.db.migrate import connect, list_known_revisions, require_current
from shopassist.errors import StateError
from shopassist.ops.snapshot.tables import FORMAT_VERSION, TABLE_SPECS, TableSpec

CHUNK_BYTES = 4 << 20
"""Bytes that are read, checked and copied together, cut at the end of a line."""

MAX_LINE_BYTES = 64 << 20
ShowProgress = Callable[[int, int], object]
"""Is told how much is done, of how much."""


class SnapshotHeader(BaseModel):
    """The first line. Who writes such a file by hand needs but the first field."""

    model_config = ConfigDict(extra="ignore")

    shopassist_state: Annotated[int, Field(ge=1)]
    schema_: Annotated[str | None, Field(alias="schema")] = None
    key: str | None = None


class SnapshotEnd(BaseModel):
    """What the last line says of all before it."""

    rows: dict[str, Annotated[int, Field(ge=0)]]
    sha256: str


class SnapshotLastLine(BaseModel):
    """The last line."""

    end: SnapshotEnd


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines of the file."""

    number: int
    offset: int
    size: int
    first_line: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A file that was found whole. The header is line 1."""

    path: Path
    header: SnapshotHeader
    end: SnapshotEnd
    chunks: tuple[Chunk, ...]
    lines: int

    @property
    def rows(self) -> int:
        """How many rows are in it."""
        return sum(self.end.rows.values())


def read_chunk(chunk: Chunk, path: Path) -> bytes:
    """The lines of a chunk. Raises `OSError`."""
    with path.open("rb") as opened:
        opened.seek(chunk.offset)
        return opened.read(chunk.size)


def scan_file(path: Path, shown: ShowProgress) -> Snapshot:
    """The file, read from end to end once, before anything is done with it.

    Raises `StateError` for one that is cut off, altered, of a newer version, or none of this kind.
    """
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            first = opened.readline(MAX_LINE_BYTES)
            header = _parse_header(path, first)
            last = _read_last_line(opened, size)
            end = _parse_end(path, last)
            opened.seek(len(first))
            chunks: list[Chunk] = []
            digest, lines = hashlib.sha256(first), 1
            offset, stop = len(first), size - len(last)
            while offset < stop:
                block = opened.read(min(CHUNK_BYTES, stop - offset))
                if offset + len(block) < stop and not block.endswith(b"\n"):
                    block += opened.readline(MAX_LINE_BYTES)
                digest.update(block)
                count = block.count(b"\n")
                chunks.append(Chunk(len(chunks), offset, len(block), lines + 1))
                offset, lines = offset + len(block), lines + count
                shown(offset, size)
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}.") from None
    if digest.hexdigest() != end.sha256:
        raise StateError(f"{path} is damaged: it is not what its last line says (SHA-256).")
    if lines - 1 != sum(end.rows.values()):
        raise StateError(f"{path} has {lines - 1:,} rows and its last line says {sum(end.rows.values()):,}.")
    return Snapshot(path, header, end, tuple(chunks), lines)


def _parse_header(path: Path, line: bytes) -> SnapshotHeader:
    try:
        header = SnapshotHeader.model_validate_json(line)
    except ValidationError:
        raise StateError(f'{path} is no snapshot: its first line is not {{"shopassist_state": 1, …}}.') from None
    if header.shopassist_state > FORMAT_VERSION:
        raise StateError(
            f"{path} is of format {header.shopassist_state}, this version knows {FORMAT_VERSION}: use a newer one."
        )
    known = list_known_revisions()
    if header.schema_ is not None and header.schema_ > known[-1]:
        raise StateError(f"{path} is of schema {header.schema_}, this version knows {known[-1]}: use a newer one.")
    return header


def _read_last_line(opened: Any, size: int) -> bytes:
    reach = 1 << 16
    opened.seek(max(0, size - reach))
    tail: bytes = opened.read()
    return tail[tail.rstrip(b"\n").rfind(b"\n") + 1 :]


def _parse_end(path: Path, line: bytes) -> SnapshotEnd:
    try:
        return SnapshotLastLine.model_validate_json(line if line.endswith(b"\n") else b"").end
    except ValidationError:
        raise StateError(f'{path} is cut off: its last line is not {{"end": …}}.') from None


class SnapshotWriter:
    """Writes such a file."""

    def __init__(self, file: Any) -> None:
        """Nothing is written yet."""
        self._file = file
        self._digest = hashlib.sha256()
        self.rows: dict[str, int] = {}

    def header(self, fields: Mapping[str, object]) -> None:
        """Write the first line."""
        self._write(json.dumps({"shopassist_state": FORMAT_VERSION, **fields}).encode() + b"\n")

    def add(self, kind: str, data: bytes) -> None:
        """Write what is part of the rows of a kind."""
        self._write(data)
        self.rows[kind] = self.rows.get(kind, 0) + data.count(b"\n")

    def end(self) -> None:
        """Write the last line."""
        self._file.write(json.dumps({"end": {"rows": self.rows, "sha256": self._digest.hexdigest()}}).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


@asynccontextmanager
async def open_writer(path: Path) -> AsyncIterator[SnapshotWriter]:
    """A file that only its owner may read, and that is there once it is whole. Raises `StateError`."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", CHUNK_BYTES) as opened:
            writer = SnapshotWriter(opened)
            yield writer
            writer.end()
            opened.flush()
            os.fsync(opened.fileno())
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StateError(f"{path} cannot be written: {error.strerror}.") from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


SESSION_SETTINGS = """
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET TimeZone = 'UTC'; SET DateStyle = 'ISO';
SET row_security = off
"""
"""A policy that hides rows is an error rather than a snapshot without them."""

ROW_ESTIMATE_QUERY = """
SELECT COALESCE(sum(GREATEST(reltuples, 0)), 0)::bigint FROM pg_class
WHERE oid = ANY(SELECT to_regclass('public.' || name) FROM unnest($1::text[]) AS n(name))
"""
UNFINISHED_ERASURES_QUERY = "SELECT EXISTS (SELECT FROM erasures WHERE finished_at IS NULL)"
ROWS_QUERY = "SELECT row_to_json(r) FROM (SELECT %L AS kind, %s FROM public.%I ORDER BY %s) AS r"
EXPORT_STATE = "export_state"


async def export_snapshot(url: URL, path: Path, key: str, shown: ShowProgress) -> dict[str, int]:
    """Write the state of the database of `url`; how many rows of each kind. `key` tells its key from another.

    Raises `StateError`, `MigrationError` and `StartupError`; no file is left behind then.
    """
    await require_current(url)
    async with connect(url) as connection, open_writer(path) as writer:
        await connection.execute(SESSION_SETTINGS)
        await insert_operator_entry(connection, EXPORT_STATE, path.name)
        total = await connection.fetchval(ROW_ESTIMATE_QUERY, [kind.name for kind in TABLE_SPECS])
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if await connection.fetchval(UNFINISHED_ERASURES_QUERY):
                raise StateError("Somebody is being erased: export when that is finished, in a minute.")
            writer.header({"schema": list_known_revisions()[-1], "key": key})
            for kind in TABLE_SPECS:
                await _write_table(connection, kind, writer, shown, total)
    return writer.rows


async def _write_table(
    connection: asyncpg.Connection, kind: TableSpec, writer: SnapshotWriter, shown: ShowProgress, total: int
) -> None:
    async def taken(data: bytes) -> None:
        writer.add(kind.name, data)
        done = sum(writer.rows.values())
        shown(done, max(total, done))

    columns = ["id", *kind.columns] if kind.names_id else kind.columns
    names = ", ".join(f'"{name}"' for name in columns)
    writer.rows[kind.name] = 0
    await statements.copy_json_lines(connection, ROWS_QUERY, taken, kind.name, names, kind.name, kind.order)
