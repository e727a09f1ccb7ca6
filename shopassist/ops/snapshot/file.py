"""The snapshot file: check and read it, and export a database into it."""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import asyncpg
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import URL

from shopassist.audit.storages import insert_operator_entry
from shopassist.db import statements
from shopassist.db.migrate import connect, list_known_revisions, require_current
from shopassist.errors import StateError
from shopassist.ops.snapshot.tables import FORMAT_VERSION, TABLE_SPECS, TableSpec, format_names

CHUNK_BYTES = 4 << 20
"""Bytes that are read, validated and copied together, extended to the end of a line."""

MAX_LINE_BYTES = 64 << 20
LAST_LINE_BYTES = 1 << 16
ReportProgress = Callable[[int, int], object]
"""Called with the amount done and the total."""

EXPORT_STATE = "export_state"
SESSION_SETTINGS = """
SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET TimeZone = 'UTC'; SET DateStyle = 'ISO';
SET row_security = off; SET temp_buffers = '64MB'
"""
"""With `row_security` off a policy that hides rows raises an error, instead of an incomplete snapshot."""

ROW_ESTIMATE_QUERY = """
SELECT COALESCE(sum(GREATEST(reltuples, 0)), 0)::bigint FROM pg_class
WHERE oid = ANY(SELECT to_regclass('public.' || name) FROM unnest($1::text[]) AS n(name))
"""
UNFINISHED_ERASURES_QUERY = "SELECT EXISTS (SELECT FROM erasures WHERE finished_at IS NULL)"
ROWS_QUERY = "SELECT row_to_json(r) FROM (SELECT %L AS kind, %s FROM public.%I ORDER BY %s) AS r"


class SnapshotHeader(BaseModel):
    """The first line. Only the version is required, so that a file is easy to write by hand."""

    shopassist_state: Annotated[int, Field(ge=1)]
    schema_: Annotated[str | None, Field(alias="schema")] = None
    key: str | None = None


class SnapshotEnd(BaseModel):
    """Row counts, and the SHA-256 of all bytes before the last line."""

    rows: dict[str, Annotated[int, Field(ge=0)]]
    sha256: str


class SnapshotLastLine(BaseModel):
    """The last line."""

    end: SnapshotEnd


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete file. `lines` counts its header and rows; rows are the bytes from `start` to `stop`."""

    path: Path
    header: SnapshotHeader
    end: SnapshotEnd
    lines: int
    start: int
    stop: int

    def read_chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the rows in chunks of whole lines, each with the number of its first line. Raises `OSError`."""
        line = 2
        with self.path.open("rb") as file:
            for chunk in _read_chunks(file, self.start, self.stop):
                yield line, chunk
                line += chunk.count(b"\n")


def scan_file(path: Path, report: ReportProgress) -> Snapshot:
    """Read a file from start to end and check that it is complete.

    Raises `StateError` for a file that is cut off, altered, of a newer version, or no snapshot.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.readline(MAX_LINE_BYTES)
            header = _parse_header(path, first)
            last = _read_last_line(file, size)
            end = _parse_last_line(path, last)
            start, stop = len(first), size - len(last)
            digest, lines, offset = hashlib.sha256(first), 1, start
            for chunk in _read_chunks(file, start, stop):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                offset += len(chunk)
                report(offset, size)
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}.") from None
    if digest.hexdigest() != end.sha256:
        raise StateError(f"{path} is damaged: it is not what its last line says (SHA-256).")
    if lines - 1 != sum(end.rows.values()):
        raise StateError(f"{path} has {lines - 1:,} rows and its last line says {sum(end.rows.values()):,}.")
    return Snapshot(path, header, end, lines, start, stop)


def _read_chunks(file: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    file.seek(start)
    while start < stop:
        chunk = file.read(min(CHUNK_BYTES, stop - start))
        if start + len(chunk) < stop and not chunk.endswith(b"\n"):
            chunk += file.readline(MAX_LINE_BYTES)
        yield chunk
        start += len(chunk)


def _parse_header(path: Path, line: bytes) -> SnapshotHeader:
    try:
        header = SnapshotHeader.model_validate_json(line)
    except ValidationError:
        raise StateError(f'{path} is no snapshot: its first line is not {{"shopassist_state": 1, …}}.') from None
    if header.shopassist_state > FORMAT_VERSION:
        raise StateError(
            f"{path} is of format {header.shopassist_state}, this version knows {FORMAT_VERSION}: use a newer one."
        )
    newest = list_known_revisions()[-1]
    if header.schema_ is not None and header.schema_ > newest:
        raise StateError(f"{path} is of schema {header.schema_}, this version knows {newest}: use a newer one.")
    return header


def _read_last_line(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - LAST_LINE_BYTES))
    tail = file.read()
    return tail[tail.rstrip(b"\n").rfind(b"\n") + 1 :]


def _parse_last_line(path: Path, line: bytes) -> SnapshotEnd:
    try:
        return SnapshotLastLine.model_validate_json(line if line.endswith(b"\n") else b"").end
    except ValidationError:
        raise StateError(f'{path} is cut off: its last line is not {{"end": …}}.') from None


class SnapshotWriter:
    """Writes a snapshot, and counts its rows by table."""

    def __init__(self, file: BinaryIO) -> None:
        """`file` is empty."""
        self._file = file
        self._digest = hashlib.sha256()
        self.rows = {spec.name: 0 for spec in TABLE_SPECS}

    def write_header(self, fields: Mapping[str, object]) -> None:
        """Write the first line."""
        self._write(_to_line({"shopassist_state": FORMAT_VERSION, **fields}))

    def write_rows(self, name: str, lines: bytes) -> None:
        """Write lines, or a part of a line, of a table."""
        self._write(lines)
        self.rows[name] += lines.count(b"\n")

    def write_end(self) -> None:
        """Write the last line."""
        self._file.write(_to_line({"end": {"rows": self.rows, "sha256": self._digest.hexdigest()}}))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


def _to_line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


@asynccontextmanager
async def open_writer(path: Path) -> AsyncIterator[SnapshotWriter]:
    """Open a file that only its owner may read, and rename it to `path` when it is complete. Raises `StateError`."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", CHUNK_BYTES) as file:
            writer = SnapshotWriter(file)
            yield writer
            writer.write_end()
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        partial.unlink(missing_ok=True)


async def export_snapshot(dsn: URL, path: Path, key: str, report: ReportProgress) -> dict[str, int]:
    """Write all rows of a database as of one instant; return the number of rows by table.

    `key` is the fingerprint of the server's secret key. Raises `StateError`, `MigrationError` and `StartupError`; then
    no file is written.
    """
    await require_current(dsn)
    async with connect(dsn) as connection, open_writer(path) as writer:
        await connection.execute(SESSION_SETTINGS)
        await insert_operator_entry(connection, EXPORT_STATE, path.name)
        total = await connection.fetchval(ROW_ESTIMATE_QUERY, [spec.name for spec in TABLE_SPECS])
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if await connection.fetchval(UNFINISHED_ERASURES_QUERY):
                raise StateError("A user is being erased: export when that is finished, in a minute.")
            writer.write_header({"schema": list_known_revisions()[-1], "key": key})
            for spec in TABLE_SPECS:
                await _write_table(connection, spec, writer, report, total)
    return writer.rows


async def _write_table(
    connection: asyncpg.Connection, spec: TableSpec, writer: SnapshotWriter, report: ReportProgress, total: int
) -> None:
    async def write(lines: bytes) -> None:
        writer.write_rows(spec.name, lines)
        done = sum(writer.rows.values())
        report(done, max(total, done))

    columns, order = format_names(spec.file_columns), format_names(column.name for column in spec.table.primary_key)
    await statements.copy_json_lines(connection, ROWS_QUERY, write, spec.name, columns, spec.name, order)
