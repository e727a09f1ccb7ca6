"""In PostgreSQL, notices, consent events and the audit log refuse changes."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from shopassist.cli import app
from shopassist.consent.models import compute_sha256
from shopassist.db.dsn import normalise_dsn
from shopassist.ops.backup_cli import finish_restore
from tests.support.helpers import execute

FILL = """
INSERT INTO consent_notices (purpose, version, locale, sha256, "text", binding_from)
VALUES ('terms', 1, 'en', encode(sha256(convert_to('Be good ₹', 'UTF8')), 'hex'), 'Be good ₹', now());
INSERT INTO consent_events (user_id, is_guest, purpose, granted, notice_id, source)
VALUES ('a', false, 'terms', true, 1, 'consents'), ('b', true, 'terms', true, 1, 'consents');
INSERT INTO admin_audit (actor, act, target, reason)
VALUES ('admin', 'adjust_credits', 'a', 'a letter from a'), ('admin', 'adjust_credits', 'b', 'x'),
       ('a', 'adjust_credits', 'b', 'y');
"""
ERASING_A = "SELECT set_config('shopassist.erasing_user', 'a', true)"
CHANGES = [
    "UPDATE consent_notices SET text = 'Be bad', sha256 = encode(sha256('Be bad'), 'hex')",
    "UPDATE consent_notices SET binding_from = now() + interval '1 year'",
    "DELETE FROM consent_notices",
    "TRUNCATE consent_notices CASCADE",
    "UPDATE consent_events SET granted = false",
    "UPDATE consent_events SET notice_id = NULL WHERE user_id = 'a'",
    "DELETE FROM consent_events WHERE user_id = 'b'",
    "TRUNCATE consent_events",
    "UPDATE admin_audit SET reason = 'a bribe' WHERE target = 'b'",
    "UPDATE admin_audit SET target = 'b', reason = 'x' WHERE actor = 'a'",
    "UPDATE admin_audit SET actor = 'other', target = 'x' WHERE target = 'a'",
    "UPDATE admin_audit SET act = 'nothing' WHERE target = 'a'",
    "UPDATE admin_audit SET reason = 'z' WHERE actor = 'a'",
    "DELETE FROM admin_audit WHERE target = 'a'",
    "TRUNCATE admin_audit",
]
FOR_A_ALONE = [
    ("DELETE FROM consent_events WHERE user_id = 'a'", "DELETE 1"),
    ("UPDATE admin_audit SET target = 'erased', reason = NULL WHERE target = 'a'", "UPDATE 1"),
    ("UPDATE admin_audit SET actor = 'erased' WHERE actor = 'a'", "UPDATE 1"),
]


@pytest.fixture
async def used(database_url: str) -> str:
    """Return a database with a notice, events of two users and three audit entries."""
    await execute(database_url, FILL)
    return database_url


async def test_nothing_is_changed_or_removed(used: str) -> None:
    """Triggers refuse every role, and also changes of other users' rows during an erasure."""
    connection = await asyncpg.connect(used)
    try:
        for prelude in ("SELECT 1", ERASING_A):
            for change in CHANGES:
                transaction = connection.transaction()
                await transaction.start()
                await connection.execute(prelude)
                with pytest.raises(asyncpg.RestrictViolationError) as refused:
                    await connection.execute(change)
                assert refused.value.constraint_name, change
                await transaction.rollback()
    finally:
        await connection.close()


async def test_only_an_erasure_transaction_may_delete_and_replace(used: str) -> None:
    """Only a transaction with the erasure setting may delete the user's events and replace the user's id."""
    connection = await asyncpg.connect(used)
    try:
        for attempt in ("before", "during", "after"):
            async with connection.transaction():
                if attempt == "during":
                    await connection.execute(ERASING_A)
                for change, done in FOR_A_ALONE:
                    if attempt == "before":
                        with pytest.raises(asyncpg.RestrictViolationError):
                            async with connection.transaction():
                                await connection.execute(change)
                    elif attempt == "during":
                        assert await connection.execute(change) == done
                    else:
                        assert (await connection.execute(change)).endswith(" 0")
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("DELETE FROM consent_events")
        assert await connection.fetchval("SELECT count(*) FROM consent_events") == 1
        assert await connection.fetchval("SELECT count(*) FROM admin_audit") == 3
    finally:
        await connection.close()


@pytest.mark.parametrize(("text", "digest"), [("Be good", compute_sha256("Be bad")), ("Be good", "")])
async def test_a_digest_is_that_of_its_text(used: str, text: str, digest: str) -> None:
    """The database recomputes it, so that a stored digest proves its text."""
    connection = await asyncpg.connect(used)
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await connection.execute(
            "INSERT INTO consent_notices (purpose, version, locale, sha256, text, binding_from) "
            "VALUES ('terms', 2, 'en', $2, $1, now())",
            text,
            digest,
        )
    assert refused.value.constraint_name == "ck_consent_notices_sha256"
    await connection.close()


def test_publishing_by_command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command publishes a file, lists it with its SHA-256, and refuses a different text for the same version."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr("getpass.getuser", lambda: "root-user")
    file = tmp_path / "terms.txt"
    file.write_bytes("Be good — ₹\r\n".encode())
    runner = CliRunner()

    def run(*arguments: str) -> tuple[int, str]:
        result = runner.invoke(app, ["consent", *arguments])
        return result.exit_code, result.stdout or str(getattr(result.exception, "detail", ""))

    published = run("publish", "terms", str(file), "--locale", "EN-in", "--reason", "counsel's advice")
    assert published[0] == 0
    digest = compute_sha256("Be good — ₹\r\n")
    assert "terms version 1 (en-IN), id 1" in published[1]
    assert digest in published[1]
    assert run("publish", "terms", str(file), "--locale", "en-IN")[1] == published[1]
    file.write_text("Be better")
    assert "in this language already" in run("publish", "terms", str(file), "--locale", "en-IN", "--version", "1")[1]
    assert run("publish", "terms", str(file), "--locale", "en-IN", "--grace-hours", "12")[0] == 0
    listed = run("notices")[1].splitlines()
    assert [line.split()[:4] for line in listed[1:]] == [["1", "terms", "1", "en-IN"], ["2", "terms", "2", "en-IN"]]
    assert digest in listed[1]
    file.write_bytes(b"\xff")
    for wrong in (
        ["publish", "terms", str(file), "--locale", "en"],
        ["publish", "Terms!", str(tmp_path / "terms.txt"), "--locale", "en"],
        ["publish", "terms", str(file), "--locale", "english"],
    ):
        code, said = run(*wrong)
        assert (code, bool(said)) == (1, True), wrong


async def test_the_command_is_in_the_audit(used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit entry has the operator and the reason."""
    file = tmp_path / "terms.txt"
    file.write_text("Be better")
    monkeypatch.setenv("DATABASE_URL", used)
    monkeypatch.setattr("getpass.getuser", lambda: "root-user")
    arguments = ["consent", "publish", "terms", str(file), "--locale", "en", "--reason", "counsel's advice"]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0
    connection = await asyncpg.connect(used)
    act = await connection.fetchrow("SELECT * FROM admin_audit ORDER BY id DESC LIMIT 1")
    await connection.close()
    assert (act["actor"], act["act"]) == ("operator:root-user", "publish_notice")
    assert (act["target"], act["reason"]) == ("terms 2 en", "counsel's advice")


async def test_restoring_a_backup_is_in_the_audit(
    used: str, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the database that was restored, where its schema has one."""
    monkeypatch.setattr("getpass.getuser", lambda: "root-user")
    await finish_restore(normalise_dsn(used), "shop-2026")
    connection = await asyncpg.connect(used)
    act = await connection.fetchrow("SELECT * FROM admin_audit ORDER BY id DESC LIMIT 1")
    await connection.close()
    assert (act["actor"], act["act"], act["target"]) == ("operator:root-user", "restore_backup", "shop-2026")
    await finish_restore(normalise_dsn(empty_database_url), "older")
