"""The list of erasures as a file outside the database: one JSON object a line, only ever added to."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

from shopassist.errors import StartupError
from shopassist.models.erasure import Listed

OTHER_KEY = (
    "{} was written under another SECRET_KEY: nobody on it could be recognised. Set the SECRET_KEY that the servers "
    "had then."
)


def lines(file: Path) -> Iterator[dict[str, str]]:
    """Each line. Raises `StartupError` for a file that is no such list."""
    try:
        with file.open(encoding="utf-8") as opened:
            for text in opened:
                # A line that was being written when the machine stopped is not there; it is added again.
                if text.endswith("\n"):
                    yield json.loads(text)
    except (OSError, ValueError):
        raise StartupError(f"{file} cannot be read as a list of erasures.") from None


def read(file: Path, fingerprint: str) -> dict[str, Listed]:
    """The last erasure of each subject, by hash. Raises `StartupError`, also for hashes under another key."""
    listed: dict[str, Listed] = {}
    for line in lines(file):
        try:
            one = Listed(UUID(line["id"]), line["subject"], datetime.fromisoformat(line["erased_at"]))
            key = line["key"]
        except (KeyError, TypeError, ValueError):
            raise StartupError(f"{file} cannot be read as a list of erasures.") from None
        if key != fingerprint:
            raise StartupError(OTHER_KEY.format(file))
        if one.subject_hash not in listed or listed[one.subject_hash].erased_at < one.erased_at:
            listed[one.subject_hash] = one
    return listed


def add(file: Path, erasures: Sequence[Listed], fingerprint: str) -> int:
    """Add the erasures that are not in `file` yet; how many. Raises `StartupError`."""
    known = {line.get("id") for line in lines(file)} if file.exists() else set()
    new = [one for one in erasures if str(one.id) not in known]
    try:
        with file.open("ab") as opened:
            opened.truncate(whole_bytes(file))
            for one in new:
                line = {"id": str(one.id), "subject": one.subject_hash, "erased_at": one.erased_at.isoformat()}
                opened.write(json.dumps({**line, "key": fingerprint}).encode() + b"\n")
    except OSError as error:
        raise StartupError(f"{file} cannot be written: {error.strerror}.") from None
    return len(new)


def whole_bytes(file: Path) -> int:
    """Where the last whole line ends."""
    with file.open("rb") as opened:
        return sum(len(line) for line in opened if line.endswith(b"\n"))
