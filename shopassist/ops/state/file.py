"""The file of a snapshot: a header, a row a line, and an end that proves the file whole."""

import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shopassist.db.migrate import known_revisions
from shopassist.errors import StateError
from shopassist.models.snapshot import FORMAT

CHUNK = 4 << 20
"""Bytes that are read, checked and copied together, cut at the end of a line."""

LONGEST_LINE = 64 << 20
Shown = Callable[[int, int], object]
"""Is told how much is done, of how much."""


class Header(BaseModel):
    """The first line. Who writes such a file by hand needs but the first field."""

    model_config = ConfigDict(extra="ignore")

    shopassist_state: Annotated[int, Field(ge=1)]
    schema_: Annotated[str | None, Field(alias="schema")] = None
    key: str | None = None


class End(BaseModel):
    """What the last line says of all before it."""

    rows: dict[str, Annotated[int, Field(ge=0)]]
    sha256: str


class LastLine(BaseModel):
    """The last line."""

    end: End


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
    header: Header
    end: End
    chunks: tuple[Chunk, ...]
    lines: int

    @property
    def rows(self) -> int:
        """How many rows are in it."""
        return sum(self.end.rows.values())


def read(chunk: Chunk, path: Path) -> bytes:
    """The lines of a chunk. Raises `OSError`."""
    with path.open("rb") as opened:
        opened.seek(chunk.offset)
        return opened.read(chunk.size)


def scanned(path: Path, shown: Shown) -> Snapshot:
    """The file, read from end to end once, before anything is done with it.

    Raises `StateError` for one that is cut off, altered, of a newer version, or none of this kind.
    """
    try:
        with path.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            first = opened.readline(LONGEST_LINE)
            header = _header(path, first)
            last = _last_line(opened, size)
            end = _end(path, last)
            opened.seek(len(first))
            chunks: list[Chunk] = []
            digest, lines = hashlib.sha256(first), 1
            offset, stop = len(first), size - len(last)
            while offset < stop:
                block = opened.read(min(CHUNK, stop - offset))
                if offset + len(block) < stop and not block.endswith(b"\n"):
                    block += opened.readline(LONGEST_LINE)
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


def _header(path: Path, line: bytes) -> Header:
    try:
        header = Header.model_validate_json(line)
    except ValidationError:
        raise StateError(f'{path} is no snapshot: its first line is not {{"shopassist_state": 1, …}}.') from None
    if header.shopassist_state > FORMAT:
        raise StateError(
            f"{path} is of format {header.shopassist_state}, this version knows {FORMAT}: use a newer one."
        )
    known = known_revisions()
    if header.schema_ is not None and header.schema_ > known[-1]:
        raise StateError(f"{path} is of schema {header.schema_}, this version knows {known[-1]}: use a newer one.")
    return header


def _last_line(opened: Any, size: int) -> bytes:
    reach = 1 << 16
    opened.seek(max(0, size - reach))
    tail: bytes = opened.read()
    return tail[tail.rstrip(b"\n").rfind(b"\n") + 1 :]


def _end(path: Path, line: bytes) -> End:
    try:
        return LastLine.model_validate_json(line if line.endswith(b"\n") else b"").end
    except ValidationError:
        raise StateError(f'{path} is cut off: its last line is not {{"end": …}}.') from None


class Writer:
    """Writes such a file."""

    def __init__(self, file: Any) -> None:
        """Nothing is written yet."""
        self._file = file
        self._digest = hashlib.sha256()
        self.rows: dict[str, int] = {}

    def header(self, fields: Mapping[str, object]) -> None:
        """Write the first line."""
        self._write(json.dumps({"shopassist_state": FORMAT, **fields}).encode() + b"\n")

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
async def written(path: Path) -> AsyncIterator[Writer]:
    """A file that only its owner may read, and that is there once it is whole. Raises `StateError`."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", CHUNK) as opened:
            writer = Writer(opened)
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
