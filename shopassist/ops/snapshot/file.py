"""The snapshot file: check and read it, and export a database into it."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Protocol

import asyncpg
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import URL

from shopassist.audit.storages import insert_operator_entry
from shopassist.db.migrate import connect, list_known_revisions, require_current
from shopassist.db.statements import copy_json_lines
from shopassist.errors import StateError
from shopassist.ops.files import write_private_file
from shopassist.ops.snapshot.tables import FORMAT_VERSION, TABLE_SPECS, format_names

CHUNK_BYTES = 4 << 20
"""Bytes that are read, validated and copied together, extended to the end of a line."""

MAX_LINE_BYTES = 64 << 20
LAST_LINE_BYTES = 1 << 16

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


class ReportProgress(Protocol):
    """Reports a step of a command: the amount done, and the total if it is known."""

    def __call__(self, step: str, done: int = 0, total: int = 0) -> object: ...


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
            last, end = _read_last_line(path, file, size)
            start, stop = len(first), size - len(last)
            digest, lines, offset = hashlib.sha256(first), 1, start
            for chunk in _read_chunks(file, start, stop):
                digest.update(chunk)
                lines += chunk.count(b"\n")
                offset += len(chunk)
                report("checking the file", offset, size)
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


def _read_last_line(path: Path, file: BinaryIO, size: int) -> tuple[bytes, SnapshotEnd]:
    file.seek(max(0, size - LAST_LINE_BYTES))
    tail = file.read()
    line = tail[tail.rstrip(b"\n").rfind(b"\n") + 1 :]
    try:
        return line, SnapshotLastLine.model_validate_json(line if line.endswith(b"\n") else b"").end
    except ValidationError:
        raise StateError(f'{path} is cut off: its last line is not {{"end": …}}.') from None


async def export_snapshot(dsn: URL, path: Path, key: str, report: ReportProgress) -> dict[str, int]:
    """Write all rows of a database as of one instant; return the number of rows by table.

    `key` is the fingerprint of the server's secret key. Raises `StateError`, `MigrationError` and `StartupError`; then
    no file is written.
    """
    await require_current(dsn)
    async with connect(dsn) as connection:
        await connection.execute(SESSION_SETTINGS)
        with write_private_file(path, StateError) as file:
            await insert_operator_entry(connection, EXPORT_STATE, path.name)
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                if await connection.fetchval(UNFINISHED_ERASURES_QUERY):
                    raise StateError("A user is being erased: export when that is finished, in a minute.")
                return await _write_rows(connection, file, key, report)


async def _write_rows(
    connection: asyncpg.Connection, file: BinaryIO, key: str, report: ReportProgress
) -> dict[str, int]:
    rows = {spec.name: 0 for spec in TABLE_SPECS}
    total = await connection.fetchval(ROW_ESTIMATE_QUERY, list(rows))
    header = {"shopassist_state": FORMAT_VERSION, "schema": list_known_revisions()[-1], "key": key}
    digest = hashlib.sha256(first := json.dumps(header).encode() + b"\n")
    file.write(first)
    for spec in TABLE_SPECS:

        async def write(data: bytes, name: str = spec.name) -> None:
            file.write(data)
            digest.update(data)
            rows[name] += data.count(b"\n")
            done = sum(rows.values())
            report("rows", done, max(total, done))

        order = format_names(spec.table.primary_key.columns.keys())
        parts = spec.name, format_names(spec.file_columns), spec.name, order
        await copy_json_lines(connection, ROWS_QUERY, write, *parts)
    file.write(json.dumps({"end": {"rows": rows, "sha256": digest.hexdigest()}}).encode() + b"\n")
    return rows
