"""Read catalogue files row by row. The format and the encoding are told by the content, never by the name."""

import codecs
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

from shopassist.catalog.importer.archives import DAMAGE, ZIP_MAGIC, open_content
from shopassist.catalog.importer.documents import read_json, read_json_lines
from shopassist.catalog.importer.feeds import read_xml
from shopassist.catalog.importer.records import FileRow
from shopassist.catalog.importer.tables import read_csv, read_spreadsheet
from shopassist.errors import InvalidInputError

STANDARD_INPUT = Path("-")
SNIFFED_BYTES = 64 << 10
ENCODING_BY_MARK = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Longer marks stand before those that they begin with."""
UNREADABLE_FORMATS = {
    b"\xd0\xcf\x11\xe0": "an old Excel file: save it as .xlsx or CSV",
    b"%PDF": "a PDF file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"7z\xbc\xaf": "a 7z archive: use .zip, .gz or .tar.gz",
    b"Rar!": "a RAR archive: use .zip, .gz or .tar.gz",
    b"PAR1": "a Parquet file: save it as CSV or JSON lines",
}
WEB_PAGE_STARTS = ("<!doctype html", "<html")


class CatalogFile:
    """A catalogue file; it can be read repeatedly. Raise `InvalidInputError` if it cannot be read.

    `path` "-" is standard input, which is copied to a temporary file. `encoding` replaces the detected one.
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.name = "stdin" if path == STANDARD_INPUT else path.name
        self.path = path
        self.bytes_read = 0
        if path == STANDARD_INPUT:
            self._copy = tempfile.NamedTemporaryFile(prefix="shopassist-")  # noqa: SIM115 - deleted with this object
            with open(0, "rb", closefd=False) as given:
                shutil.copyfileobj(given, self._copy)
            self._copy.flush()
            self.path = Path(self._copy.name)
        try:
            self.size = self.path.stat().st_size
            with self._open() as (_, content):
                start = content.read(SNIFFED_BYTES)
            self.encoding = self._check_encoding(encoding) or self._detect_encoding(start)
        except OSError as error:
            if error.strerror is None:
                self._raise_damaged("is damaged: its compressed data cannot be read")
            raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from None
        except DAMAGE:
            self._raise_damaged("is damaged: its compressed data cannot be read")
        self.format = self._detect_format(start)

    def read_rows(self) -> Iterator[FileRow]:
        """Yield every row in order, and keep `bytes_read` at the position in the file, which may be compressed.

        Raise `InvalidInputError` where the file is cut off or damaged.
        """
        readers: dict[str, Callable[[IO[bytes], str], Iterator[FileRow]]]
        readers = {
            "csv": partial(_read_text, read_csv),
            "jsonl": partial(_read_text, read_json_lines),
            "json": read_json,
            "xml": read_xml,
            "xlsx": lambda content, _: read_spreadsheet(content),
        }
        try:
            with self._open() as (file, content):
                for row in readers[self.format](content, self.encoding):
                    self.bytes_read = min(file.tell(), self.size)
                    yield row
        except EOFError:
            self._raise_damaged("is cut off: its compressed data ends early")
        except OSError as error:
            what = f"cannot be read further: {error.strerror}" if error.strerror else "is damaged"
            self._raise_damaged(f"{what}: its compressed data cannot be read further" if not error.strerror else what)
        except DAMAGE:
            self._raise_damaged("is damaged: its compressed data cannot be read further")

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Yield the file and its uncompressed content."""
        with self.path.open("rb") as file, open_content(file) as content:
            yield file, content

    def _raise_damaged(self, what: str) -> NoReturn:
        raise InvalidInputError(f"{self.name if self.name == 'stdin' else self.path} {what}.")

    @staticmethod
    def _check_encoding(stated: str | None) -> str | None:
        try:
            return codecs.lookup(stated).name if stated else None
        except LookupError:
            raise InvalidInputError(
                f"--encoding: there is no encoding {stated!r}; try utf-8, utf-16 or windows-1252."
            ) from None

    def _detect_encoding(self, start: bytes) -> str:
        """Return the encoding by its mark; else UTF-8, unless more lines with other letters are not UTF-8 than are."""
        marked = next((name for mark, name in ENCODING_BY_MARK.items() if start.startswith(mark)), None)
        if marked or start.startswith(ZIP_MAGIC):
            return marked or "utf-8"
        is_utf8 = not_utf8 = 0
        with self._open() as (_, content):
            try:
                while lines := content.readlines(SNIFFED_BYTES):
                    if b"".join(lines).isascii():
                        continue
                    for line in lines:
                        if not line.isascii():
                            try:
                                line.decode()
                                is_utf8 += 1
                            except UnicodeDecodeError:
                                not_utf8 += 1
            except DAMAGE:
                pass  # Told when the rows are read.
        return "cp1252" if not_utf8 > is_utf8 else "utf-8"

    def _detect_format(self, start: bytes) -> str:
        if start.startswith(ZIP_MAGIC):
            return "xlsx"
        for magic, kind in UNREADABLE_FORMATS.items():
            if start.startswith(magic):
                self._raise_damaged(f"is {kind}")
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(start).lstrip("\ufeff \t\r\n")
        if text[:14].lower().startswith(WEB_PAGE_STARTS):
            self._raise_damaged("is a web page, no catalogue")
        if text.startswith("<"):
            return "xml"
        if not text.startswith(("{", "[")):
            return "csv"
        lines = [line for line in text.splitlines() if line.strip()]
        return "jsonl" if text.startswith("{") and len(lines) > 1 and _are_objects(lines) else "json"


def _are_objects(lines: list[str]) -> bool:
    """Return whether the first line is a JSON object of its own, or else most of the following are."""
    return _is_object(lines[0]) or sum(map(_is_object, lines[1:])) * 2 > len(lines) - 1


def _is_object(line: str) -> bool:
    try:
        return line.lstrip().startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_text(read: Callable[[IO[str]], Iterator[FileRow]], content: IO[bytes], encoding: str) -> Iterator[FileRow]:
    # Bytes of another encoding become lone surrogates; the validation of the row rejects them.
    with io.TextIOWrapper(content, encoding=encoding, errors="surrogateescape", newline="") as text:
        yield from read(text)
