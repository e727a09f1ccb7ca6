"""Imports a snapshot, and resumes an import of the same file that ended early."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from sqlalchemy import URL

from shopassist.audit.postgres import insert_operator_entry
from shopassist.db import statements
from shopassist.db.migrate import require_current
from shopassist.errors import StateError
from shopassist.ops.snapshot import insert, staging
from shopassist.ops.snapshot.file import ShowProgress, Snapshot, read_chunk
from shopassist.ops.snapshot.staging import stage_chunks
from shopassist.ops.snapshot.tables import TABLE_SPECS
from shopassist.ops.snapshot.validate_file import HashUserId, validate_staged

IMPORT_STATE = "import_state"
OTHER_KEY_MESSAGE = (
    "{} was made under another SECRET_KEY: nobody who was erased could be recognised. Set the SECRET_KEY that the "
    "servers had then."
)
OUTCOMES_QUERY = "SELECT kind, sum(imported)::bigint AS imported FROM outcomes GROUP BY kind"
REJECTED_QUERY = "SELECT line, kind, reason FROM rejected WHERE line <= $1 ORDER BY line, reason"
COUNT_DIFFERING = "SELECT count(*) FROM rejected WHERE reason LIKE '%is there already, and differs'"


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """Is told what is done: `begin` a step that can be counted, or that something is done at all."""

    begin: Callable[[str], ShowProgress]
    said: Callable[[str], object]


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What became of the rows of a file. `imported` are rows by kind, some of which the file leaves out.

    `differing` are rows or people that are there already and are other than in the file.
    """

    rows: int
    imported: Mapping[str, int]
    rejected: int
    differing: int
    into_empty: bool
    resumed: bool


async def import_snapshot(
    url: URL,
    snapshot: Snapshot,
    subject: HashUserId,
    key: str,
    rejects: Path,
    progress: SnapshotProgress,
    *,
    discard: bool = False,
) -> SnapshotReport:
    """Import a snapshot into the database of `url`.

    `subject` hashes user ids, `key` tells its key from another, `rejects` is where refused rows go, and `discard`
    forgets an import that ended early. Raises `StateError`, `MigrationError` and `StartupError`.
    """
    await require_current(url)
    async with staging.open_session(url, staging.IMPORT_SCHEMA) as connection:
        if discard:
            await staging.drop_tables(connection, staging.IMPORT_SCHEMA)
        phase = await staging.get_phase(connection, staging.IMPORT_SCHEMA, snapshot)
        resumed = phase is not None
        if phase is None:
            await staging.create_tables(connection, staging.IMPORT_SCHEMA, snapshot)
            await insert_operator_entry(connection, IMPORT_STATE, snapshot.path.name)
            phase = "staging"
        if phase == "staging":
            await stage_snapshot(connection, url, staging.IMPORT_SCHEMA, snapshot, subject, key, progress)
            phase = "checked"
        if phase == "checked":
            progress.said("notices, products, answers")
            await insert.insert_other_tables(connection, snapshot.lines)
            phase = "prepared"
        into_empty = False
        if phase == "prepared":
            into_empty = await insert.insert_into_empty(connection, subject, progress.said)
            if not into_empty:
                progress.said("who is in the file")
                await insert.number_users(connection)
                phase = "moving"
        if phase == "moving":
            await insert.merge_into_filled(connection, subject, progress.begin("people"))
        for kind in TABLE_SPECS:
            await statements.execute_quoted(connection, "ANALYZE public.%I", kind.name)
        report = await _build_report(connection, snapshot, rejects, into_empty=into_empty, resumed=resumed)
        await staging.drop_tables(connection, staging.IMPORT_SCHEMA)
    return report


async def stage_snapshot(
    connection: asyncpg.Connection,
    url: URL,
    schema: str,
    snapshot: Snapshot,
    subject: HashUserId,
    key: str,
    progress: SnapshotProgress,
) -> None:
    """Stage what is not staged yet, and check it. Raises `StateError`."""
    if snapshot.header.key not in {None, key}:
        raise StateError(OTHER_KEY_MESSAGE.format(snapshot.path))
    link = url.render_as_string(hide_password=False)
    place = staging.StagingTarget(link, schema, snapshot.path, snapshot.header.key is not None)
    chunks = await staging.list_missing_chunks(connection, snapshot)
    size = sum(chunk.size for chunk in snapshot.chunks)
    await stage_chunks(place, chunks, size, progress.begin("checking and copying rows"))
    await validate_staged(connection, snapshot.lines, subject, progress.said)


async def _build_report(
    connection: asyncpg.Connection, snapshot: Snapshot, rejects: Path, *, into_empty: bool, resumed: bool
) -> SnapshotReport:
    lines = await connection.fetch(REJECTED_QUERY, snapshot.lines)
    if lines:
        _write_rejects(snapshot, {row["line"]: (row["kind"], row["reason"]) for row in lines}, rejects)
    outcomes = {row["kind"]: row["imported"] for row in await connection.fetch(OUTCOMES_QUERY)}
    differing = await connection.fetchval(COUNT_DIFFERING)
    return SnapshotReport(snapshot.rows, outcomes, len(lines) - differing, differing, into_empty, resumed)


def _write_rejects(snapshot: Snapshot, refused: Mapping[int, tuple[str | None, str]], rejects: Path) -> None:
    """Write each refused line of the file with its number and the reason. Raises `StateError`."""
    try:
        with os.fdopen(os.open(rejects, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
            for chunk in snapshot.chunks:
                for line, text in enumerate(read_chunk(chunk, snapshot.path).split(b"\n"), chunk.first_line):
                    if line in refused and text:
                        kind, reason = refused[line]
                        row = {"line": line, "kind": kind, "reason": reason, "row": text.decode(errors="replace")}
                        opened.write(json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise StateError(f"{rejects} cannot be written: {error.strerror}.") from None
