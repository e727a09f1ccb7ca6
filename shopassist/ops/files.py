"""Files that only their owner may read, and folders that last."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from shopassist.errors import ShopAssistError

MOUNTS = Path("/proc/self/mountinfo")
PASSING = {
    "tmpfs": "in memory, and lost when the container or the machine stops",
    "ramfs": "in memory, and lost when the machine stops",
    "overlay": "in the container's own layer, and lost with the container",
}
"""File systems that do not last, and what that means."""


def describe_passing_folder(folder: Path) -> str | None:
    """Return why files in a folder, which need not exist yet, will be lost; None if they last as far as is known."""
    folder, found = folder.resolve(), (0, "")
    for line in MOUNTS.read_text().splitlines() if MOUNTS.exists() else ():
        place, _, kind = line.partition(" - ")
        point = Path(place.split()[4].replace("\\040", " "))
        if folder.is_relative_to(point) and len(point.parts) >= found[0]:
            found = len(point.parts), kind.split()[0]
    return PASSING.get(found[1])


@contextmanager
def write_private_file(path: Path, failure: type[ShopAssistError]) -> Iterator[BinaryIO]:
    """Write a file under another name, and rename it to `path` once it is complete and on the disk.

    Raises `failure` if it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise failure(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        with suppress(OSError):
            partial.unlink()
