"""Importing a snapshot, from wherever an import of the same file ended early."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from shopassist.db.migrate import require_current
from shopassist.db.postgres import ddl
from shopassist.errors import StateError
from shopassist.models.snapshot import KINDS
from shopassist.ops.operator import recorded
from shopassist.ops.state import load, ranges, staging
from shopassist.ops.state.checks import Hash, check
from shopassist.ops.state.file import Shown, Snapshot, read
from shopassist.ops.state.workers import staged_all

IMPORT_STATE = "import_state"
OTHER_KEY = (
    "{} was made under another SECRET_KEY: nobody who was erased could be recognised. Set the SECRET_KEY that the "
    "servers had then."
)
OUTCOMES = "SELECT kind, sum(imported)::bigint AS imported FROM outcomes GROUP BY kind"
REJECTED = "SELECT line, kind, reason FROM rejected WHERE line <= $1 ORDER BY line, reason"
DIFFERS = "SELECT count(*) FROM rejected WHERE reason LIKE '%is there already, and differs'"


@dataclass(frozen=True, slots=True)
class Progress:
    """Is told what is done: `begin` a step that can be counted, or that something is done at all."""

    begin: Callable[[str], Shown]
    said: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the rows of a file. `imported` are rows by kind, some of which the file leaves out.

    `differing` are rows or people that are there already and are other than in the file.
    """

    rows: int
    imported: Mapping[str, int]
    rejected: int
    differing: int
    into_empty: bool
    resumed: bool


async def imported(
    url: URL, snapshot: Snapshot, subject: Hash, key: str, rejects: Path, progress: Progress, *, discard: bool = False
) -> Report:
    """Import a snapshot into the database of `url`.

    `subject` hashes user ids, `key` tells its key from another, `rejects` is where refused rows go, and `discard`
    forgets an import that ended early. Raises `StateError`, `MigrationError` and `StartupError`.
    """
    await require_current(url)
    async with staging.session(url, staging.IMPORT) as connection:
        if discard:
            await staging.drop(connection, staging.IMPORT)
        phase = await staging.phase_of(connection, staging.IMPORT, snapshot)
        resumed = phase is not None
        if phase is None:
            await staging.create(connection, staging.IMPORT, snapshot)
            await recorded(connection, IMPORT_STATE, snapshot.path.name)
            phase = "staging"
        if phase == "staging":
            await fill(connection, url, staging.IMPORT, snapshot, subject, key, progress)
            phase = "checked"
        if phase == "checked":
            progress.said("notices, products, answers")
            await load.prepare(connection, snapshot.lines)
            phase = "prepared"
        into_empty = False
        if phase == "prepared":
            into_empty = await load.into_empty(connection, subject, progress.said)
            if not into_empty:
                progress.said("who is in the file")
                await ranges.begin(connection)
                phase = "moving"
        if phase == "moving":
            await ranges.into_filled(connection, subject, progress.begin("people"))
        for kind in KINDS:
            await ddl.run(connection, "ANALYZE public.%I", kind.name)
        report = await _reported(connection, snapshot, rejects, into_empty=into_empty, resumed=resumed)
        await staging.drop(connection, staging.IMPORT)
    return report


async def fill(
    connection: asyncpg.Connection,
    url: URL,
    schema: str,
    snapshot: Snapshot,
    subject: Hash,
    key: str,
    progress: Progress,
) -> None:
    """Stage what is not staged yet, and check it. Raises `StateError`."""
    if snapshot.header.key not in {None, key}:
        raise StateError(OTHER_KEY.format(snapshot.path))
    link = url.render_as_string(hide_password=False)
    place = staging.Place(link, schema, snapshot.path, snapshot.header.key is not None)
    chunks = await staging.missing(connection, snapshot)
    size = sum(chunk.size for chunk in snapshot.chunks)
    await staged_all(place, chunks, size, progress.begin("checking and copying rows"))
    await check(connection, snapshot.lines, subject, progress.said)


async def _reported(
    connection: asyncpg.Connection, snapshot: Snapshot, rejects: Path, *, into_empty: bool, resumed: bool
) -> Report:
    lines = await connection.fetch(REJECTED, snapshot.lines)
    if lines:
        _write(snapshot, {row["line"]: (row["kind"], row["reason"]) for row in lines}, rejects)
    outcomes = {row["kind"]: row["imported"] for row in await connection.fetch(OUTCOMES)}
    differing = await connection.fetchval(DIFFERS)
    return Report(snapshot.rows, outcomes, len(lines) - differing, differing, into_empty, resumed)


def _write(snapshot: Snapshot, refused: Mapping[int, tuple[str | None, str]], rejects: Path) -> None:
    """Write each refused line of the file with its number and the reason. Raises `StateError`."""
    try:
        with os.fdopen(os.open(rejects, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
            for chunk in snapshot.chunks:
                for line, text in enumerate(read(chunk, snapshot.path).split(b"\n"), chunk.first_line):
                    if line in refused and text:
                        kind, reason = refused[line]
                        row = {"line": line, "kind": kind, "reason": reason, "row": text.decode(errors="replace")}
                        opened.write(json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise StateError(f"{rejects} cannot be written: {error.strerror}.") from None
