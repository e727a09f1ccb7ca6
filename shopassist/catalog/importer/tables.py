"""Read tables: CSV of any dialect, line by line so that a stray quote costs one row, and spreadsheets."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import islice
from typing import IO, Any, NamedTuple

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from shopassist.catalog.importer.columns import count_fields
from shopassist.catalog.importer.records import MAX_LINE_CHARACTERS, FileRow
from shopassist.errors import InvalidInputError

DELIMITERS = ",;\t|"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*')
ESCAPED_QUOTE = re.compile(r'[^\\,;\t|\r\n]\\"(?![,;\t|\r\n"])')
SNIFFED_LINES = 100
SEARCHED_RECORDS = 20
MAX_RECORD_LINES = 1_000
MIN_TELLING_COLUMNS = 3
csv.field_size_limit(MAX_LINE_CHARACTERS * 2)


class Record(NamedTuple):
    """The cells of one record, which begins in `line`; None, with the reason, if they cannot be read."""

    line: int
    cells: list[Any] | None
    reason: str = ""
    raw: str = ""


@dataclass(slots=True)
class _Lines:
    """The lines of a file, for `csv.reader`; those that it `took` for a record can be given back."""

    stream: IO[str]
    waiting: deque[str] = field(default_factory=deque)
    took: list[str] = field(default_factory=list)
    characters: int = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else self.stream.readline(MAX_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        self.took.append(line)
        self.characters += len(line)
        if len(line) >= MAX_LINE_CHARACTERS and not line.endswith("\n"):
            while (rest := self.stream.readline(MAX_LINE_CHARACTERS)) and not rest.endswith("\n"):
                pass
            raise csv.Error(f"a line is longer than {MAX_LINE_CHARACTERS:,} characters")
        if len(self.took) > MAX_RECORD_LINES or self.characters > MAX_LINE_CHARACTERS:
            raise csv.Error("a quote is not closed")
        return line

    def begin(self) -> None:
        self.took, self.characters = [], 0

    def give_back(self) -> None:
        self.waiting.extendleft(reversed(self.took[1:]))


def read_csv(content: IO[str]) -> Iterator[FileRow]:
    """Yield the rows of a CSV file below its headings."""
    lines = _Lines(content)
    start = list(islice(content, SNIFFED_LINES)) if content.seekable() else []
    content.seek(0)
    first = start[0].lstrip("\ufeff") if start else ""
    separator = SEPARATOR_LINE.fullmatch(first.rstrip("\r\n"))
    dialect, header = _detect_dialect(start, separator[1] if separator else None)
    return _read_rows(_read_records(lines, dialect, len(header)), header)


def _detect_dialect(start: list[str], separator: str | None) -> tuple[dict[str, Any], list[str]]:
    """Return the parameters for `csv.reader`, and the headings: those with the most known fields, then the most."""
    text = "".join(start)
    quote = "'" if re.match(r"\ufeff?\s*'[^'\n]*'[,;\t|]'", text) else '"'
    common: dict[str, Any] = {"quotechar": quote, "skipinitialspace": bool(re.search(rf"[,;|] {quote}", text))}
    if quote == '"' and ESCAPED_QUOTE.search(text):
        common["escapechar"] = "\\"
    rated = []
    for delimiter in separator or DELIMITERS:
        dialect = common | {"delimiter": delimiter}
        records = list(islice(csv.reader(start, **dialect), SEARCHED_RECORDS))
        header = find_header(records)
        rated.append((len(count_fields(header)), len(header), dialect, header))
    return max(rated, key=lambda found: found[:2])[2:]


def find_header(records: Iterable[list[Any]]) -> list[str]:
    """Return the first of the records with the most known fields; without any the first that is no comment."""
    named = [[_clean_heading(cell) for cell in cells] for cells in records]
    shown = [cells for cells in named if any(cells) and not SEPARATOR_LINE.fullmatch(",".join(cells))]
    rows = [cells for cells in shown if not cells[0].startswith("#")] or shown
    return max([*rows, *shown], key=lambda cells: len(count_fields(cells)), default=[])


def _clean_heading(cell: Any) -> str:
    return " ".join(str(cell).lstrip("\ufeff").split()) if cell is not None else ""


def _read_records(lines: _Lines, dialect: dict[str, Any], width: int) -> Iterator[Record]:
    """Yield all records. Where a quote opens a cell that does not end well, only that line is lost."""
    reader = csv.reader(lines, strict=True, **dialect)
    number = 1
    while True:
        lines.begin()
        try:
            cells = next(reader, None)
            reason = "a quote is not closed" if _swallows_rows(lines.took, dialect["delimiter"], width) else ""
        except csv.Error as error:
            cells, reason = [], str(error)
        if cells is None:
            return
        if not reason:
            yield Record(number, cells)
            number += len(lines.took)
            continue
        lines.give_back()
        yield Record(number, None, f"line is not CSV: {reason}", lines.took[0].rstrip("\r\n"))
        number += 1


def _swallows_rows(took: list[str], delimiter: str, width: int) -> bool:
    """Return whether every line of a record with line breaks is a row by itself, so that a quote is missing."""
    if len(took) == 1 or width < MIN_TELLING_COLUMNS:
        return False
    return all(line.count(delimiter) == width - 1 for line in took)


def _read_rows(records: Iterator[Record], header: list[str]) -> Iterator[FileRow]:
    """Yield the rows below the headings. A missing last cell is empty; empty cells beyond the headings are ignored."""
    for record in records:
        if record.cells is not None and [_clean_heading(cell) for cell in record.cells] == header:
            break
    for line, cells, reason, raw in records:
        if cells is None:
            yield FileRow(line, None, reason, raw)
            continue
        while len(cells) > len(header) and cells[-1] in ("", None):
            cells.pop()
        if not any(cell not in ("", None) for cell in cells) or _is_comment(cells, header):
            continue
        if len(cells) > len(header):
            yield FileRow(line, None, f"{len(cells)} cells where the header has {len(header)}", ascii(cells))
            continue
        padded = [*cells, *([""] * (len(header) - len(cells)))]
        # Of columns with one name the first counts.
        yield FileRow(line, {n: v for n, v in zip(reversed(header), reversed(padded), strict=True) if n})


def _is_comment(cells: list[Any], header: list[str]) -> bool:
    return len(cells) == 1 < len(header) and str(cells[0]).startswith("#")


def read_spreadsheet(content: IO[bytes]) -> Iterator[FileRow]:
    """Yield the rows of the sheet that has the most known headings."""
    try:
        book = load_workbook(content, read_only=True, data_only=True)
    except (InvalidFileException, KeyError, ValueError) as error:
        raise InvalidInputError(f"The spreadsheet cannot be read: {error}.") from None
    try:
        sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
        headers = [
            find_header(_read_cells(row) for row in islice(sheet.iter_rows(values_only=True), SEARCHED_RECORDS))
            for sheet in sheets
        ]
        header, sheet = max(zip(headers, sheets, strict=True), key=lambda found: len(count_fields(found[0])))
        while header and not header[-1]:
            header.pop()
        rows = enumerate(sheet.iter_rows(values_only=True), start=1)
        yield from _read_rows((Record(number, _trim(_read_cells(row))) for number, row in rows), header)
    finally:
        book.close()


def _read_cells(row: Iterable[Any]) -> list[Any]:
    return [_read_cell(value) for value in row]


def _read_cell(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _trim(cells: list[Any]) -> list[Any]:
    while cells and cells[-1] in ("", None):
        cells.pop()
    return cells
