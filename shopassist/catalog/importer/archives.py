"""Open what a catalogue file holds: itself, or the one file in a gzip, zip or tar archive."""

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, cast

from shopassist.errors import InvalidInputError

GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
TAR_MAGIC, TAR_MAGIC_OFFSET = b"ustar", 257
WORKBOOK = "xl/workbook.xml"
MAX_LISTED_MEMBERS = 5
DAMAGE = (EOFError, OSError, zlib.error, zipfile.BadZipFile, tarfile.TarError)
"""Errors of reading a damaged archive."""


@contextmanager
def open_content(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield the content of a file that is open at its start. A spreadsheet, although a zip, is yielded as it is."""
    start = file.read(TAR_MAGIC_OFFSET + len(TAR_MAGIC))
    file.seek(0)
    if start.startswith(ZIP_MAGIC):
        with zipfile.ZipFile(file) as archive:
            if WORKBOOK in archive.namelist():
                file.seek(0)
                yield file
                return
            member = archive.getinfo(_choose_member([name for name in archive.namelist() if not name.endswith("/")]))
            if member.flag_bits & 1:
                raise InvalidInputError(f"{member.filename} in the archive is encrypted.")
            with archive.open(member) as content:
                yield content
        return
    is_compressed = start.startswith(GZIP_MAGIC)
    if is_compressed:
        with gzip.open(file) as unpacked:
            start = unpacked.read(TAR_MAGIC_OFFSET + len(TAR_MAGIC))
        file.seek(0)
    if start.endswith(TAR_MAGIC):
        with tarfile.open(fileobj=file, mode="r:*") as tar:
            name = _choose_member([entry.name for entry in tar if entry.isfile()])
            yield cast("IO[bytes]", tar.extractfile(name))
    elif is_compressed:
        with gzip.open(file) as unpacked:
            yield cast("IO[bytes]", unpacked)
    else:
        yield file


def _choose_member(names: Sequence[str]) -> str:
    """Return the one file that is not hidden (macOS adds such files)."""
    shown = [name for name in names if not any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)]
    if len(shown) == 1:
        return shown[0]
    held = f"{len(shown)} files ({', '.join(shown[:MAX_LISTED_MEMBERS])})" if shown else "no file"
    raise InvalidInputError(f"The archive holds {held}: it must hold exactly one catalogue.")
