"""Files that only their owner may read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from shopassist.errors import ShopAssistError


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
