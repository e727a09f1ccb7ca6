"""The state as a file: what is exported comes back, an import may be killed, what is wrong is refused with a reason."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from benchmarks import state_import
from containers import Container
from shopassist.cli import app
from shopassist.consent.models import UserConsentCreate
from shopassist.ops.snapshot.tables import TABLE_SPECS
from tests.support.database_pool import DatabasePool
from tests.support.helpers import postgres_settings

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "state.md"
NOON = "2026-03-01T12:00:00+00:00"
LATER = "2026-03-02T12:00:00+00:00"
Run = Callable[..., Result]


def snapshot(path: Path, *rows: dict[str, Any] | str, header: dict[str, Any] | None = None) -> Path:
    """A snapshot with these rows, as whoever leaves the old product writes it."""
    lines = [json.dumps({"shopassist_state": 1} | (header or {}))]
    lines += [row if isinstance(row, str) else json.dumps(row) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    end = {"end": {"rows": {"any": len(rows)}, "sha256": hashlib.sha256(text.encode()).hexdigest()}}
    path.write_text(text + json.dumps(end) + "\n")
    return path


def account(user_id: str, left: Any = 7, **others: Any) -> dict[str, Any]:
    """An account as the old product's dictionary had it."""
    row = {"kind": "user_credits", "user_id": user_id, "is_guest": False, "available_credits": left}
    return {**row, "max_credits": 50, "last_reset_timestamp": NOON, **others}


def transaction(user_id: str, amount: int, **others: Any) -> dict[str, Any]:
    """A transaction as the old product's list had it."""
    row = {"kind": "credit_transactions", "user_id": user_id, "transaction_type": "allocate", "amount": amount}
    return {**row, "timestamp": NOON, **others}


def consent(user_id: str, **others: Any) -> dict[str, Any]:
    """A consent as the old product's dictionary had it."""
    return {"kind": "user_consents", "user_id": user_id, "timestamp": NOON, **others}


def event(user_id: str, **others: Any) -> dict[str, Any]:
    """A consent event."""
    row = {"kind": "consent_events", "user_id": user_id, "is_guest": False, "purpose": "terms", "granted": True}
    return {**row, "source": "record", "timestamp": NOON, **others}


def answer(query_hash: str, **others: Any) -> dict[str, Any]:
    """A stored answer."""
    row = {"kind": "query_cache", "query_hash": query_hash, "result": {"products": [], "price": 10999.10}}
    return {**row, "cached_at": NOON, "expires_at": LATER, **others}


OLD_PRODUCT = (
    account("auth0|1", 47),
    account("guest-2", 10, is_guest=True, max_credits=10),
    account("auth0|spent", 0),
    transaction("auth0|1", 50, description="Initial credits"),
    transaction("auth0|1", -3, transaction_type="deduct", timestamp=LATER),
    consent("auth0|1", marketing_consent=True),
    answer("aa"),
)


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the database."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
async def other_url(database_pool: DatabasePool) -> Any:
    """A second database, migrated and empty."""
    url = await database_pool.take()
    yield url
    await database_pool.give_back(url)


async def rows_of(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def changed(url: str, statement: str) -> None:
    """Change something."""
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def ran(run: Run, *arguments: object) -> Result:
    """The outcome of a command, which has an event loop of its own."""
    return await asyncio.to_thread(run, *arguments)


def rejects_of(path: Path) -> dict[int, str]:
    """The reasons by line."""
    lines = path.with_name(f"{path.name}.rejects.jsonl").read_text().splitlines()
    return {row["line"]: row["reason"] for row in map(json.loads, lines)}


async def test_the_old_products_dump(database_url: str, run: Run, tmp_path: Path) -> None:
    """What it did not know comes from its rows: opening rows, balances, the history of consent, no instant of today."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    result = await ran(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    ledger = "SELECT user_id, transaction_type, amount, balance_after FROM credit_transactions ORDER BY user_id, id"
    assert await rows_of(database_url, ledger) == [
        ("auth0|1", "allocate", 50, 50),
        ("auth0|1", "deduct", -3, 47),
        ("guest-2", "opening", 10, 10),
    ]
    events = "SELECT user_id, purpose, granted, source FROM consent_events ORDER BY id"
    assert await rows_of(database_url, events) == [
        ("auth0|1", "terms", True, "earlier_record"),
        ("auth0|1", "marketing", True, "earlier_record"),
    ]
    assert await rows_of(database_url, "SELECT max(created_at) < '2026-03-02' FROM user_credits") == [(True,)]
    assert await rows_of(database_url, "SELECT result ->> 'price' FROM query_cache") == [("10999.1",)]
    assert (await ran(run, "credits", "verify")).exit_code == 0
    assert (await ran(run, "state", "verify", file)).exit_code == 0


async def test_the_example_for_the_old_product(
    database_url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines in the documentation write what can be imported, trimmed ledgers and all."""
    program = DOCUMENTATION.read_text().partition("```python\n")[2].partition("```")[0]
    noon = datetime(2026, 3, 1, 12)  # noqa: DTZ001 - as the old product's
    credits_of = {"is_guest": False, "max_credits": 50, "last_reset_timestamp": noon}
    transaction_of = {"user_id": "auth0|1", "transaction_type": "deduct", "timestamp": noon, "description": None}
    state = {
        "user_credits": {
            "auth0|1": SimpleNamespace(available_credits=44, **credits_of),
            "auth0|2": SimpleNamespace(available_credits=50, **credits_of),
        },
        "transactions": [SimpleNamespace(amount=-amount, **transaction_of) for amount in (2, 0, 1)],
        "user_consents": {"auth0|1": SimpleNamespace(terms_accepted=True, marketing_consent=False, timestamp=noon)},
        "query_cache": {"aa": SimpleNamespace(result={}, cached_at=noon, expires_at=noon + timedelta(hours=1))},
    }
    monkeypatch.chdir(tmp_path)
    exec(program, state)  # noqa: S102 - our own documentation
    result = await ran(run, "state", "import", tmp_path / "state.jsonl")
    assert result.exit_code == 0, result.output
    assert "0 refused" in result.output
    balances = "SELECT user_id, amount, balance_after FROM credit_transactions ORDER BY user_id, id"
    assert await rows_of(database_url, balances) == [
        ("auth0|1", 47, 47),
        ("auth0|1", -2, 45),
        ("auth0|1", -1, 44),
        ("auth0|2", 50, 50),
    ]


async def test_what_is_exported_comes_back(database_url: str, other_url: str, run: Run, tmp_path: Path) -> None:
    """Every kind of row is the same in a second database, and in what is exported from there."""
    await filled(database_url)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    result = await ran(run, "state", "export", first)
    assert result.exit_code == 0, result.output
    assert first.stat().st_mode & 0o777 == 0o600
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", other_url)
        for command in (("import", first), ("verify", first), ("export", second)):
            result = await ran(run, "state", *command)
            assert result.exit_code == 0, result.output
    there, back = (kinds_of(path) for path in (first, second))
    assert set(there) == {kind.name for kind in TABLE_SPECS}
    assert set(map(str, there.pop("admin_audit"))) < set(map(str, back.pop("admin_audit")))
    assert there == back
    assert (await ran(run, "state", "verify", second)).exit_code == 1  # the second database's own acts are not here


async def filled(url: str) -> None:
    """Something of every kind."""
    container = Container(settings=postgres_settings(url))
    await container.credit_service().deduct_credit("auth0|1", amount=3)
    await container.consent_service().create_consent("auth0|1", UserConsentCreate())
    await container.credit_service().deduct_credit("guest-gone", is_guest=True)
    await container.erasure_service().erase("guest-gone", is_guest=True)
    await container.shutdown()
    await changed(url, FILL)


def kinds_of(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a file by their kind, in order."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines()[1:-1]:
        row = json.loads(line)
        kinds.setdefault(row.pop("kind"), []).append(row)
    return kinds


FILL = """
INSERT INTO credit_holds (hold_id, user_id, amount, expires_at, idempotency_key)
VALUES (gen_random_uuid(), 'auth0|1', 2, now(), 'key');
UPDATE user_credits SET held_credits = 2, available_credits = available_credits - 2 WHERE user_id = 'auth0|1';
INSERT INTO consent_notices (purpose, version, locale, sha256, text, binding_from)
SELECT 'terms', n, 'en', encode(sha256(convert_to('Terms ₹ ' || n, 'UTF8')), 'hex'), 'Terms ₹ ' || n, now()
FROM generate_series(1, 3) n;
INSERT INTO consent_events (user_id, is_guest, purpose, granted, notice_id, source)
SELECT 'auth0|1', false, 'terms', true, id, 'consents' FROM consent_notices WHERE version = 2;
INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
VALUES ('auth0|1', 'key', 'hash', '{"price": 0.1234567890123456789, "text": "line\\nbreak \\\\ \\" é"}', now());
INSERT INTO guest_merges (guest_id, user_id, merged_at, moved) VALUES ('guest-3', 'auth0|1', now(), '{"answers": 1}');
INSERT INTO admin_audit (actor, act, target, reason) VALUES ('auth0|admin', 'adjust_credits', 'auth0|1', 'asked for');
INSERT INTO guest_networks (day, network, accounts) VALUES (current_date, 'hash', 3);
INSERT INTO products (source, source_id, title, price, currency, rating, attributes, link, words)
VALUES ('shop', '1', 'Phone', 10999.00, 'INR', 4.25, '{"ram_gb": 8}', 'https://example.com', ARRAY['phone', 'a,"b']);
INSERT INTO query_cache (query_hash, result, expires_at) VALUES ('aa', '{"products": []}', now() + interval '1 hour');
"""


async def test_a_second_import_changes_nothing(database_url: str, run: Run, tmp_path: Path) -> None:
    """Whatever was imported is there already, and nothing of it differs."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    await ran(run, "state", "import", file)
    before = await everything(database_url)
    result = await ran(run, "state", "import", file)
    assert "0 added, 0 refused, 0 there already and different" in result.output
    assert await everything(database_url) == before


async def everything(url: str) -> list[list[tuple[Any, ...]]]:
    """All rows but those of the audit."""
    tables = [kind.name for kind in TABLE_SPECS if kind.name != "admin_audit"]
    return [await rows_of(url, f"SELECT * FROM {name} ORDER BY 1") for name in tables]  # noqa: S608 - names of ours


async def test_into_filled_tables(database_url: str, run: Run, tmp_path: Path) -> None:
    """Who is not there yet is added whole; who is stays as they are, and is named when they differ."""
    await ran(run, "state", "import", snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT))
    rows = (
        account("auth0|1", 46),
        transaction("auth0|1", 46, balance_after=46),
        account("guest-2", 10, is_guest=True, max_credits=10),
        account("auth0|new", 5),
        transaction("auth0|new", 9),
        transaction("auth0|new", -4, transaction_type="deduct"),
        event("auth0|new"),
        answer("aa", result={"products": ["another"]}),
        answer("bb"),
    )
    file = snapshot(tmp_path / "more.jsonl", *rows)
    result = await ran(run, "state", "import", file)
    assert "9 rows in the file: 5 added, 0 refused, 2 there already and different" in result.output
    assert rejects_of(file) == {
        2: "the person is there already, and differs",
        9: "is there already, and differs",
    }
    balances = "SELECT user_id, available_credits FROM user_credits ORDER BY user_id"
    assert await rows_of(database_url, balances) == [
        ("auth0|1", 47),
        ("auth0|new", 5),
        ("auth0|spent", 0),
        ("guest-2", 10),
    ]
    assert await rows_of(database_url, "SELECT count(*) FROM credit_transactions WHERE user_id = 'auth0|1'") == [(2,)]
    assert (await ran(run, "credits", "verify")).exit_code == 0
    await ran(run, "user", "erase", "auth0|1")  # ids go on behind those that were imported
    assert (await ran(run, "credits", "verify")).exit_code == 0
    result = await ran(run, "state", "verify", file)
    assert result.exit_code == 1
    assert "query_cache differs: (aa)" in result.output


WITH_FIGURE = json.dumps(answer("cc", result={"a": 1.5}))
INVALID: dict[str, tuple[dict[str, Any] | str, str]] = {
    "no JSON": ("{", 'the line does not begin with {"kind": "…"'),
    "JSON cut off": ('{"kind": "user_credits", "user_id": "a"', "Invalid JSON"),
    "unknown kind": ({"kind": "wishes"}, "there is no kind wishes"),
    "unknown field": (account("a", nickname="b"), "nickname: Extra inputs are not permitted"),
    "field missing": ({"kind": "user_credits", "user_id": "a"}, "is_guest: Field required"),
    "text as number": (account("a", "7"), "available_credits: Input should be a valid integer"),
    "fraction": (account("a", 7.5), "available_credits: Input should be a valid integer"),
    "too large": (account("a", 2**31), "available_credits: Input should be less than or equal to 2147483647"),
    "negative": (account("a", -1), "breaks the rule ck_user_credits_available_credits"),
    "long user id": (account("a" * 256), "user_id: String should have at most 255 characters"),
    "empty user id": (account(""), "user_id: String should have at least 1 character"),
    "NUL": (account("a\x00"), "a text has the NUL character"),
    "lone surrogate": (account("\ud800"), "Invalid JSON: unexpected end of hex escape"),
    "naive time": (account("a", last_reset_timestamp="2026-03-01T12:00:00"), "last_reset_timestamp: Input should have"),
    "no time": (account("a", last_reset_timestamp="noon"), "last_reset_timestamp: Input should be a valid datetime"),
    "no such type": (transaction("a", 1, transaction_type="gift"), "transaction_type: Input should be 'allocate'"),
    "amount of nothing": (transaction("a", 0), "breaks the rule ck_credit_transactions_amount"),
    "no account": (transaction("nobody", 1), "its account is not in the file, or is refused"),
    "no such notice": (event("a", notice_id=9), "its notice is not in the file, or of another purpose"),
    "answer of before": (answer("cc", expires_at="2026-02-01T00:00:00Z"), "breaks the rule ck_query_cache_expires_at"),
    "NaN": (WITH_FIGURE.replace("1.5", "NaN"), "invalid input syntax for type json"),
    "huge number": (WITH_FIGURE.replace("1.5", "1e200000"), "value overflows numeric format"),
    "two rows": (WITH_FIGURE + ", " + WITH_FIGURE, "more than one row on the line"),
    "repeated": (answer("aa"), "repeats line 8 (query_hash)"),
    "erasure under no key": ({"kind": "erasures"}, 'hashed under a key that the header does not name ("key")'),
}


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_row_is_refused(name: str, database_url: str, run: Run, tmp_path: Path) -> None:
    """With its line and the reason; all others are imported."""
    row, reason = INVALID[name]
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT, row)
    result = await ran(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    [(line, said)] = rejects_of(file).items()
    assert line == 9
    assert said.startswith(reason)
    assert await rows_of(database_url, "SELECT count(*) FROM user_credits") == [(3,)]
    assert await rows_of(database_url, "SELECT count(*) FROM query_cache") == [(1,)]
    assert (await ran(run, "state", "verify", file)).exit_code == 1


async def test_nobody_is_imported_in_part(database_url: str, run: Run, tmp_path: Path) -> None:
    """One refused row of a person refuses all of that person's rows, whatever they are."""
    rows = (
        account("auth0|2", 5),
        transaction("auth0|2", 5),
        consent("auth0|2"),
        event("auth0|2"),
        event("auth0|2", notice_id=3),
        account("auth0|3", 5),
        transaction("auth0|3", 4),
        account("auth0|4", 5, held_credits=1),
        transaction("auth0|4", 6),
        account("auth0|5", 5),
        transaction("auth0|5", 5, balance_after=6),
    )
    file = snapshot(tmp_path / "old.jsonl", *rows)
    await ran(run, "state", "import", file)
    same = "line 6 of the same person is refused"
    assert rejects_of(file) == {
        2: same,
        3: same,
        4: same,
        5: same,
        6: "its notice is not in the file, or of another purpose",
        7: "available and held credits are 5, the sum of its transactions is 4",
        8: "line 7 of the same person is refused",
        9: "held credits are 1, the sum of its holds is 0",
        10: "line 9 of the same person is refused",
        11: "the balance after its newest transaction is not the sum of them, 5",
        12: "line 11 of the same person is refused",
    }
    assert await rows_of(database_url, "SELECT user_id FROM user_credits") == []
    assert await rows_of(database_url, "SELECT user_id FROM consent_events") == []


def cut_off(data: bytes) -> bytes:
    """The last line and a bit are missing."""
    return data[:-200]


def altered(data: bytes) -> bytes:
    """One credit more."""
    return data.replace(b'"amount": 50', b'"amount": 51')


def newer(data: bytes) -> bytes:
    """Of the format after this one."""
    return data.replace(b'"shopassist_state": 1', b'"shopassist_state": 2')


def newer_schema(data: bytes) -> bytes:
    """Of a schema after this one."""
    return data.replace(b'"shopassist_state": 1', b'"shopassist_state": 1, "schema": "9999"')


def foreign(data: bytes) -> bytes:
    """Some other file."""
    return b"[" + data


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut_off, "is cut off"),
        (altered, "is damaged"),
        (newer, "use a newer one"),
        (newer_schema, "use a newer one"),
        (foreign, "is no snapshot"),
    ],
)
async def test_a_file_that_is_not_whole_is_refused(
    harm: Callable[[bytes], bytes], reason: str, database_url: str, run: Run, tmp_path: Path
) -> None:
    """Before anything is written."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    file.write_bytes(harm(file.read_bytes()))
    result = await ran(run, "state", "import", file)
    assert reason in str(result.exception)
    assert await rows_of(database_url, "SELECT to_regnamespace('state_import') IS NULL") == [(True,)]
    assert await rows_of(database_url, "SELECT count(*) FROM admin_audit") == [(0,)]


async def test_another_key_is_refused(run: Run, tmp_path: Path) -> None:
    """Whose hashes lead to nobody."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT, header={"key": "another"})
    result = await ran(run, "state", "import", file)
    assert "another SECRET_KEY" in str(result.exception)


async def test_verify_finds_a_changed_credit(database_url: str, run: Run, tmp_path: Path) -> None:
    """And names the table and whose it is."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    await ran(run, "state", "import", file)
    await changed(database_url, "UPDATE user_credits SET available_credits = 46 WHERE user_id = 'auth0|1'")
    result = await ran(run, "state", "verify", file)
    assert result.exit_code == 1
    assert "user_credits differs: (auth0|1)" in result.output
    assert "credit_transactions differs" not in result.output
    assert await rows_of(database_url, "SELECT to_regnamespace('state_verify') IS NULL") == [(True,)]


async def test_the_erased_stay_erased(database_url: str, run: Run, tmp_path: Path) -> None:
    """A file from before an erasure brings nobody back; who came back since is somebody new."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    await ran(run, "state", "import", file)
    await ran(run, "user", "erase", "auth0|1")
    result = await ran(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    assert rejects_of(file) == dict.fromkeys((2, 5, 6, 7), "the person was erased")
    for table in ("user_credits", "credit_transactions", "user_consents", "consent_events"):
        there = f"SELECT count(*) FROM {table} WHERE user_id = 'auth0|1'"  # noqa: S608 - names of ours
        assert await rows_of(database_url, there) == [(0,)]
    assert (await ran(run, "state", "verify", file)).exit_code == 0
    tomorrow = "2999-01-01T00:00:00Z"
    new = snapshot(tmp_path / "new.jsonl", account("auth0|1", 3, created_at=tomorrow))
    assert "2 added" in (await ran(run, "state", "import", new)).output


INDEXES = """
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
ORDER BY 1
"""
HELD = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["staging", "checking", "prepared", "loading", "moving"])
async def test_a_killed_import_is_finished(
    moment: str, database_url: str, run: Run, tmp_path: Path, large: Path
) -> None:
    """Killed at any time and given again it comes to the same, with every index and key that there was."""
    before = await rows_of(database_url, INDEXES)
    if moment == "moving":
        await ran(run, "state", "import", snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT))
    command = [sys.executable, "-m", "shopassist", "state", "import", str(large)]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: ASYNC220
    await wait_for(moment, database_url, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert await rows_of(database_url, "SELECT count(*) FROM user_credits") != [(LARGE,)]
    other = snapshot(tmp_path / "another.jsonl", *OLD_PRODUCT)
    await until_free(database_url)
    assert "has not ended" in str((await ran(run, "state", "import", other)).exception)
    result = await ran(run, "state", "import", large)
    assert result.exit_code == 0, result.output
    assert "gone on with" in result.output
    assert await rows_of(database_url, INDEXES) == before
    assert (await ran(run, "state", "verify", large)).exit_code == 0
    assert (await ran(run, "credits", "verify")).exit_code == 0
    assert "0 added" in (await ran(run, "state", "import", large)).output


RUNNING = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1)
"""
MOMENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "staging": (RUNNING, ("COPY %staged_%",)),
    "checking": (RUNNING, ("%INSERT INTO rejected%",)),
    "prepared": ("SELECT EXISTS (SELECT FROM query_cache WHERE query_hash <> 'aa')", ()),
    "loading": (RUNNING, ("%INSERT INTO public.%credit_transactions%",)),
    "moving": ("SELECT count(*) > 1000 FROM user_credits", ()),
}


async def wait_for(moment: str, url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until an import reaches a moment."""
    statement, values = MOMENTS[moment]
    connection = await asyncpg.connect(url)
    try:
        while process.poll() is None:
            if await connection.fetchval(statement, *values):
                return
            await asyncio.sleep(0.005)
    finally:
        await connection.close()
    pytest.fail("the import ended before it could be killed")


async def until_free(url: str) -> None:
    """Wait until the server has noticed that the killed import is gone."""
    while await rows_of(url, HELD) != [(0,)]:
        await asyncio.sleep(0.05)


LARGE = 25_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of several chunks."""
    path = tmp_path_factory.mktemp("large") / "large.jsonl"
    state_import.write_snapshot(path, 0, LARGE)
    return path


async def test_an_import_that_has_not_ended_can_be_forgotten(database_url: str, run: Run, tmp_path: Path) -> None:
    """By the one who says so."""
    await changed(
        database_url,
        "CREATE SCHEMA state_import;"
        "CREATE TABLE state_import.begun AS SELECT 'other' AS sha256, '' AS phase, '' AS path",
    )
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    assert "--discard" in str((await ran(run, "state", "import", file)).exception)
    assert (await ran(run, "state", "import", file, "--discard")).exit_code == 0


async def test_not_during_a_rollout(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When users are in the memory of a server."""
    monkeypatch.setenv("STORAGE", "rollout")
    result = await ran(run, "state", "export", tmp_path / "state.jsonl")
    assert "STORAGE=rollout" in str(result.exception)


@pytest.mark.slow
async def test_who_is_erased_while_an_import_goes_on_does_not_come_back(
    database_url: str, run: Run, tmp_path: Path, large: Path
) -> None:
    """Who was there and whose turn has not come yet is left out, and named among the rejects; all others are there."""
    last = max(state_import.get_user_id(number) for number in range(LARGE))
    await ran(run, "state", "import", snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT, account(last)))
    command = [sys.executable, "-m", "shopassist", "state", "import", str(large)]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: ASYNC220
    try:
        await wait_for("moving", database_url, process)
        assert (await ran(run, "user", "erase", last)).exit_code == 0
        assert process.poll() is None, "it had ended before somebody was erased"
    finally:
        code = await asyncio.to_thread(process.wait)
    assert code == 0
    for table in ("user_credits", "credit_transactions", "user_consents", "consent_events"):
        statement = f"SELECT count(*) FROM {table} WHERE user_id = $1"  # noqa: S608 - names of ours
        assert await rows_of(database_url, statement, last) == [(0,)]
    assert await rows_of(database_url, "SELECT count(*) FROM user_credits") == [(LARGE + 3,)]  # one of a pseudonym
    assert set(rejects_of(large).values()) == {"the person was erased"}
    assert (await ran(run, "credits", "verify")).exit_code == 0


async def test_no_export_while_somebody_is_being_erased(database_url: str, run: Run, tmp_path: Path) -> None:
    """Whoever takes the file over would not know that they are to be erased."""
    await changed(
        database_url,
        "INSERT INTO erasures (id, subject_hash, is_guest, had_account, asked_by, requested_at, user_id, pseudonym, "
        "counts) VALUES (gen_random_uuid(), 'h', true, true, 'user', now(), 'u', 'p', '{}')",
    )
    file = tmp_path / "state.jsonl"
    assert "being erased" in str((await ran(run, "state", "export", file)).exception)
    assert not file.exists()
