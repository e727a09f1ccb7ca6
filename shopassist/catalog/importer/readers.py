"""Read catalogue files row by row: CSV, JSON lines and JSON, optionally compressed with gzip."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from shopassist.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: its `values`, or the `reason` why it cannot be read. `line` counts from 1 (in JSON: elements)."""

    line: int
    values: dict[str, Any] | None
    reason: str = ""
    raw: str = ""


GZIP_MAGIC = b"\x1f\x8b"
MAX_LINE_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 256 << 20
SNIFFED_BYTES = 64 << 10
DELIMITERS = ",;\t|"


class CatalogFile:
    """A catalogue file; it can be read repeatedly. Raise `InvalidInputError` if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self.compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from None
        self.format = self._detect_format()

    def read_rows(self) -> Iterator[FileRow]:
        """Yield every row in order, and keep `bytes_read` at the position in the file, which may be compressed.

        Raise `InvalidInputError` where the file is cut off or damaged.
        """
        readers: dict[str, Callable[[IO[bytes]], Iterator[FileRow]]]
        readers = {"csv": _read_csv, "jsonl": _read_json_lines, "json": _read_json}
        with self._open() as (file, content):
            try:
                for row in readers[self.format](content):
                    self.bytes_read = min(file.tell(), self.size)
                    yield row
            except EOFError:
                self._raise_damaged("is cut off: its compressed data ends early")
            except (gzip.BadGzipFile, zlib.error):
                self._raise_damaged("is damaged: its compressed data cannot be read further")
            except OSError as error:
                self._raise_damaged(f"cannot be read further: {error.strerror}")

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Yield the file and its uncompressed content."""
        with self.path.open("rb") as file, gzip.open(file) if self.compressed else nullcontext(file) as content:
            yield file, cast("IO[bytes]", content)

    def _raise_damaged(self, what: str) -> NoReturn:
        raise InvalidInputError(f"{self.path} {what}.")

    def _detect_format(self) -> str:
        suffix = Path(self.path.stem).suffix if self.path.suffix.lower() == ".gz" else self.path.suffix
        named = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(suffix.lower())
        if named:
            return named
        with self._open() as (_, content):
            try:
                start = content.read(SNIFFED_BYTES).decode("utf-8-sig", "replace").lstrip()
            except (EOFError, OSError, zlib.error):
                self._raise_damaged("is damaged: its compressed data cannot be read")
        if not start.startswith(("{", "[")):
            return "csv"
        first_line = start.partition("\n")[0]
        try:
            return "jsonl" if isinstance(json.loads(first_line), dict) and first_line != start else "json"
        except ValueError:
            return "json"


def _read_json_lines(content: IO[bytes]) -> Iterator[FileRow]:
    line = 0
    while raw := content.readline(MAX_LINE_BYTES + 1):
        line += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = content.readline(MAX_LINE_BYTES)
            yield FileRow(line, None, f"line is longer than {MAX_LINE_BYTES:,} bytes")
        elif raw.strip():
            yield _parse_json_line(line, raw)


def _parse_json_line(line: int, raw: bytes) -> FileRow:
    shown = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return FileRow(line, None, "line is not UTF-8", shown)
    except (ValueError, RecursionError) as error:
        return FileRow(line, None, f"line is not JSON: {error}", shown)
    return _object_to_row(line, value)


def _read_json(content: IO[bytes]) -> Iterator[FileRow]:
    document = content.read(MAX_DOCUMENT_BYTES + 1)
    if len(document) > MAX_DOCUMENT_BYTES:
        raise InvalidInputError(f"A JSON file over {MAX_DOCUMENT_BYTES >> 20} MiB: write one object a line (.jsonl).")
    try:
        value = json.loads(document.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidInputError("The JSON file is not UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"The file is not JSON: {error}.") from None
    lists = [entry for entry in value.values() if isinstance(entry, list)] if isinstance(value, dict) else [value]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise InvalidInputError("The JSON file holds no list of products.")
    for number, entry in enumerate(lists[0], start=1):
        yield _object_to_row(number, entry)


def _object_to_row(line: int, value: Any) -> FileRow:
    if isinstance(value, dict):
        return FileRow(line, value)
    return FileRow(line, None, "not a JSON object", ascii(value))


def _read_csv(content: IO[bytes]) -> Iterator[FileRow]:
    # Invalid UTF-8 becomes lone surrogates; the validation of the row rejects them.
    with io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        header_line = lines.readline(MAX_LINE_BYTES)
        delimiter = max(DELIMITERS, key=header_line.count)
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
        cells = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            try:
                values = next(cells, None)
            except csv.Error as error:
                yield FileRow(cells.line_num + 1, None, f"line is not CSV: {error}")
                continue
            if values is None:
                return
            line = cells.line_num + 1
            if values and len(values) == len(header):
                yield FileRow(line, dict(zip(header, values, strict=True)))
            elif values:
                reason = f"{len(values)} cells where the header has {len(header)}"
                yield FileRow(line, None, reason, ascii(values))
