"""Reading catalogue files row by row: CSV, JSON lines and JSON, each also compressed with gzip."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from shopassist.errors import InvalidInputError

GZIP = b"\x1f\x8b"
LONGEST_LINE = 1 << 20
LONGEST_DOCUMENT = 256 << 20
SAMPLE = 64 << 10
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: its `values`, or the `reason` why there are none. `line` counts from 1 (JSON: elements)."""

    line: int
    values: dict[str, Any] | None
    reason: str = ""
    raw: str = ""


class CatalogFile:
    """A catalogue file that can be read from its beginning as often as needed."""

    def __init__(self, path: Path) -> None:
        """Find out what the file is. Raises `InvalidInputError` when it cannot be read."""
        self.path = path
        self.bytes_read = 0
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self.compressed = file.read(len(GZIP)) == GZIP
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from None
        self.format = self._format()

    def rows(self) -> Iterator[Row]:
        """Every row in order; `bytes_read` counts the bytes of the file, compressed as it is, as they are used.

        Raises `InvalidInputError` where the file itself ends early or is damaged.
        """
        read: Callable[[IO[bytes]], Iterator[Row]] = {"csv": _csv, "jsonl": _json_lines, "json": _json}[self.format]
        with self._opened() as (file, content):
            rows = read(content)
            while (row := self._next(rows)) is not None:
                self.bytes_read = min(file.tell(), self.size)
                yield row

    @contextmanager
    def _opened(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """The file as it lies there, and its content."""
        with self.path.open("rb") as file:
            if not self.compressed:
                yield file, file
                return
            with gzip.open(file) as content:
                yield file, cast("IO[bytes]", content)

    def _next(self, rows: Iterator[Row]) -> Row | None:
        try:
            return next(rows, None)
        except EOFError:
            self._damaged("is cut off: its compressed data ends early")
        except (gzip.BadGzipFile, zlib.error):
            self._damaged("is damaged: its compressed data cannot be read further")
        except OSError as error:
            self._damaged(f"cannot be read further: {error.strerror}")

    def _damaged(self, what: str) -> NoReturn:
        raise InvalidInputError(f"{self.path} {what}.")

    def _format(self) -> str:
        suffix = Path(self.path.stem).suffix if self.path.suffix.lower() == ".gz" else self.path.suffix
        named = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}.get(suffix.lower())
        return named or self._format_by_content()

    def _format_by_content(self) -> str:
        with self._opened() as (_, content):
            try:
                start = content.read(SAMPLE).decode("utf-8-sig", "replace").lstrip()
            except (EOFError, OSError, zlib.error):
                self._damaged("is damaged: its compressed data cannot be read")
        if not start.startswith(("{", "[")):
            return "csv"
        first_line = start.partition("\n")[0]
        try:
            return "jsonl" if isinstance(json.loads(first_line), dict) and first_line != start else "json"
        except ValueError:
            return "json"


def _json_lines(content: IO[bytes]) -> Iterator[Row]:
    line = 0
    while raw := content.readline(LONGEST_LINE + 1):
        line += 1
        if len(raw) > LONGEST_LINE:
            while raw and not raw.endswith(b"\n"):
                raw = content.readline(LONGEST_LINE)
            yield Row(line, None, f"line is longer than {LONGEST_LINE:,} bytes")
        elif raw.strip():
            yield _json_line(line, raw)


def _json_line(line: int, raw: bytes) -> Row:
    shown = raw.decode("utf-8", "backslashreplace").rstrip("\r\n")
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Row(line, None, "line is not UTF-8", shown)
    except (ValueError, RecursionError) as error:
        return Row(line, None, f"line is not JSON: {error}", shown)
    return _object(line, value)


def _json(content: IO[bytes]) -> Iterator[Row]:
    document = content.read(LONGEST_DOCUMENT + 1)
    if len(document) > LONGEST_DOCUMENT:
        raise InvalidInputError(f"A JSON file over {LONGEST_DOCUMENT >> 20} MiB: write one object a line (.jsonl).")
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
        yield _object(number, entry)


def _object(line: int, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(line, value)
    return Row(line, None, "not a JSON object", ascii(value))


def _csv(content: IO[bytes]) -> Iterator[Row]:
    # Bytes that are no UTF-8 become lone surrogates, which the validation of the one row refuses.
    with io.TextIOWrapper(content, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        header_line = lines.readline(LONGEST_LINE)
        delimiter = max(DELIMITERS, key=header_line.count)
        header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter), [])]
        cells = csv.reader(lines, delimiter=delimiter, strict=True)
        while True:
            try:
                values = next(cells, None)
            except csv.Error as error:
                yield Row(cells.line_num + 1, None, f"line is not CSV: {error}")
                continue
            if values is None:
                return
            if values:
                yield _record(cells.line_num + 1, header, values)


def _record(line: int, header: list[str], values: list[str]) -> Row:
    if len(values) != len(header):
        return Row(line, None, f"{len(values)} cells where the header has {len(header)}", ascii(values))
    return Row(line, dict(zip(header, values, strict=True)))
