"""`shopassist state`: export, import and verify; killed imports; rejected rows."""

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
    """Write a snapshot with these rows, as an export of the old product."""
    lines = [json.dumps({"shopassist_state": 1} | (header or {}))]
    lines += [row if isinstance(row, str) else json.dumps(row) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    end = {"end": {"rows": {"any": len(rows)}, "sha256": hashlib.sha256(text.encode()).hexdigest()}}
    path.write_text(text + json.dumps(end) + "\n")
    return path


def account(user_id: str, left: Any = 7, **others: Any) -> dict[str, Any]:
    """Return an account of the old product."""
    row = {"kind": "user_credits", "user_id": user_id, "is_guest": False, "available_credits": left}
    return {**row, "max_credits": 50, "last_reset_timestamp": NOON, **others}


def transaction(user_id: str, amount: int, **others: Any) -> dict[str, Any]:
    """Return a transaction of the old product."""
    row = {"kind": "credit_transactions", "user_id": user_id, "transaction_type": "allocate", "amount": amount}
    return {**row, "timestamp": NOON, **others}


def consent(user_id: str, **others: Any) -> dict[str, Any]:
    """Return a consent record of the old product."""
    return {"kind": "user_consents", "user_id": user_id, "timestamp": NOON, **others}


def event(user_id: str, **others: Any) -> dict[str, Any]:
    """Return a consent event."""
    row = {"kind": "consent_events", "user_id": user_id, "is_guest": False, "purpose": "terms", "granted": True}
    return {**row, "source": "record", "timestamp": NOON, **others}


def answer(query_hash: str, **others: Any) -> dict[str, Any]:
    """Return a cached answer."""
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
    """Return a function that runs a command on the database."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
async def other_url(database_pool: DatabasePool) -> Any:
    """Return the URL of a second database, migrated and empty."""
    url = await database_pool.take()
    yield url
    await database_pool.give_back(url)


async def fetch_rows(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Fetch the rows of a statement."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def execute_statement(url: str, statement: str) -> None:
    """Execute a statement."""
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def run_command(run: Run, *arguments: object) -> Result:
    """Run a command in a thread, because it starts its own event loop."""
    return await asyncio.to_thread(run, *arguments)


def read_rejects(path: Path) -> dict[int, str]:
    """Return the reasons of an import's rejects file by line."""
    lines = path.with_name(f"{path.name}.rejects.jsonl").read_text().splitlines()
    return {row["line"]: row["reason"] for row in map(json.loads, lines)}


async def test_import_of_the_old_product(database_url: str, run: Run, tmp_path: Path) -> None:
    """Initial balances, balances after transactions and the consent history are derived from its rows."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    result = await run_command(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    ledger = "SELECT user_id, transaction_type, amount, balance_after FROM credit_transactions ORDER BY user_id, id"
    assert await fetch_rows(database_url, ledger) == [
        ("auth0|1", "allocate", 50, 50),
        ("auth0|1", "deduct", -3, 47),
        ("guest-2", "opening", 10, 10),
    ]
    events = "SELECT user_id, purpose, granted, source FROM consent_events ORDER BY id"
    assert await fetch_rows(database_url, events) == [
        ("auth0|1", "terms", True, "earlier_record"),
        ("auth0|1", "marketing", True, "earlier_record"),
    ]
    assert await fetch_rows(database_url, "SELECT max(created_at) < '2026-03-02' FROM user_credits") == [(True,)]
    assert await fetch_rows(database_url, "SELECT result ->> 'price' FROM query_cache") == [("10999.1",)]
    assert (await run_command(run, "credits", "verify")).exit_code == 0
    assert (await run_command(run, "state", "verify", file)).exit_code == 0


async def test_the_example_in_the_documentation(
    database_url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented program writes a file that can be imported, also with a trimmed ledger."""
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
    result = await run_command(run, "state", "import", tmp_path / "state.jsonl")
    assert result.exit_code == 0, result.output
    assert "0 refused" in result.output
    balances = "SELECT user_id, amount, balance_after FROM credit_transactions ORDER BY user_id, id"
    assert await fetch_rows(database_url, balances) == [
        ("auth0|1", 47, 47),
        ("auth0|1", -2, 45),
        ("auth0|1", -1, 44),
        ("auth0|2", 50, 50),
    ]


async def test_an_export_can_be_imported(database_url: str, other_url: str, run: Run, tmp_path: Path) -> None:
    """A second database has the same rows of every table, and so has its export."""
    await fill_database(database_url)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    result = await run_command(run, "state", "export", first)
    assert result.exit_code == 0, result.output
    assert first.stat().st_mode & 0o777 == 0o600
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", other_url)
        for command in (("import", first), ("verify", first), ("export", second)):
            result = await run_command(run, "state", *command)
            assert result.exit_code == 0, result.output
    exported, exported_again = (read_tables(path) for path in (first, second))
    assert set(exported) == {kind.name for kind in TABLE_SPECS}
    assert set(map(str, exported.pop("admin_audit"))) < set(map(str, exported_again.pop("admin_audit")))
    assert exported == exported_again
    # The first database does not have the audit entries of the second one.
    assert (await run_command(run, "state", "verify", second)).exit_code == 1


async def fill_database(url: str) -> None:
    """Insert rows into every table."""
    container = Container(settings=postgres_settings(url))
    await container.credit_service().deduct_credit("auth0|1", amount=3)
    await container.consent_service().create_consent("auth0|1", UserConsentCreate())
    await container.credit_service().deduct_credit("guest-gone", is_guest=True)
    await container.erasure_service().erase("guest-gone", is_guest=True)
    await container.shutdown()
    await execute_statement(url, FILL)


def read_tables(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a file by table, in order."""
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
    """All rows exist already, and none differs."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    await run_command(run, "state", "import", file)
    before = await fetch_all_rows(database_url)
    result = await run_command(run, "state", "import", file)
    assert "0 added, 0 refused, 0 there already and different" in result.output
    assert await fetch_all_rows(database_url) == before


async def fetch_all_rows(url: str) -> list[list[tuple[Any, ...]]]:
    """Fetch all rows, except audit entries."""
    tables = [kind.name for kind in TABLE_SPECS if kind.name != "admin_audit"]
    return [await fetch_rows(url, f"SELECT * FROM {name} ORDER BY 1") for name in tables]  # noqa: S608 - names of ours


async def test_into_filled_tables(database_url: str, run: Run, tmp_path: Path) -> None:
    """New users are added completely; existing users are not changed, and are reported if they differ."""
    await run_command(run, "state", "import", snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT))
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
    result = await run_command(run, "state", "import", file)
    assert "9 rows in the file: 5 added, 0 refused, 2 there already and different" in result.output
    assert read_rejects(file) == {
        2: "the person is there already, and differs",
        9: "is there already, and differs",
    }
    balances = "SELECT user_id, available_credits FROM user_credits ORDER BY user_id"
    assert await fetch_rows(database_url, balances) == [
        ("auth0|1", 47),
        ("auth0|new", 5),
        ("auth0|spent", 0),
        ("guest-2", 10),
    ]
    assert await fetch_rows(database_url, "SELECT count(*) FROM credit_transactions WHERE user_id = 'auth0|1'") == [
        (2,)
    ]
    assert (await run_command(run, "credits", "verify")).exit_code == 0
    await run_command(run, "user", "erase", "auth0|1", "--yes")  # new ids follow those of imported rows
    assert (await run_command(run, "credits", "verify")).exit_code == 0
    result = await run_command(run, "state", "verify", file)
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
    "no account": (transaction("unknown", 1), "its account is not in the file, or is refused"),
    "no such notice": (event("a", notice_id=9), "its notice is not in the file, or of another purpose"),
    "answer of before": (answer("cc", expires_at="2026-02-01T00:00:00Z"), "breaks the rule ck_query_cache_expires_at"),
    "NaN": (WITH_FIGURE.replace("1.5", "NaN"), "invalid input syntax for type json"),
    "huge number": (WITH_FIGURE.replace("1.5", "1e200000"), "value overflows numeric format"),
    "two rows": (WITH_FIGURE + ", " + WITH_FIGURE, "more than one row on the line"),
    "repeated": (answer("aa"), "repeats line 8 (query_hash)"),
    "erasure under no key": ({"kind": "erasures"}, 'hashed under a key that the header does not name ("key")'),
}


@pytest.mark.parametrize("name", INVALID)
async def test_an_invalid_row_is_rejected(name: str, database_url: str, run: Run, tmp_path: Path) -> None:
    """The rejects file has its line and the reason; all other rows are imported."""
    row, reason = INVALID[name]
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT, row)
    result = await run_command(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    [(line, said)] = read_rejects(file).items()
    assert line == 9
    assert said.startswith(reason)
    assert await fetch_rows(database_url, "SELECT count(*) FROM user_credits") == [(3,)]
    assert await fetch_rows(database_url, "SELECT count(*) FROM query_cache") == [(1,)]
    assert (await run_command(run, "state", "verify", file)).exit_code == 1


async def test_users_are_imported_completely_or_not_at_all(database_url: str, run: Run, tmp_path: Path) -> None:
    """If one row of a user is rejected, all rows of the user are."""
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
    await run_command(run, "state", "import", file)
    same = "line 6 of the same person is refused"
    assert read_rejects(file) == {
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
    assert await fetch_rows(database_url, "SELECT user_id FROM user_credits") == []
    assert await fetch_rows(database_url, "SELECT user_id FROM consent_events") == []


def cut_off(data: bytes) -> bytes:
    """Remove the last line and a part of the one before."""
    return data[:-200]


def alter(data: bytes) -> bytes:
    """Add one credit."""
    return data.replace(b'"amount": 50', b'"amount": 51')


def set_newer_format(data: bytes) -> bytes:
    """Set the next version of the format."""
    return data.replace(b'"shopassist_state": 1', b'"shopassist_state": 2')


def set_newer_schema(data: bytes) -> bytes:
    """Set a newer schema."""
    return data.replace(b'"shopassist_state": 1', b'"shopassist_state": 1, "schema": "9999"')


def break_header(data: bytes) -> bytes:
    """Make the first line invalid."""
    return b"[" + data


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (cut_off, "is cut off"),
        (alter, "is damaged"),
        (set_newer_format, "use a newer one"),
        (set_newer_schema, "use a newer one"),
        (break_header, "is no snapshot"),
    ],
)
async def test_a_damaged_file_is_refused(
    harm: Callable[[bytes], bytes], reason: str, database_url: str, run: Run, tmp_path: Path
) -> None:
    """It is refused before anything is written to the database."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    file.write_bytes(harm(file.read_bytes()))
    result = await run_command(run, "state", "import", file)
    assert reason in str(result.exception)
    assert await fetch_rows(database_url, "SELECT to_regnamespace('state_import') IS NULL") == [(True,)]
    assert await fetch_rows(database_url, "SELECT count(*) FROM admin_audit") == [(0,)]


async def test_another_key_is_refused(run: Run, tmp_path: Path) -> None:
    """Hashed user ids of the file could not be matched with users."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT, header={"key": "another"})
    result = await run_command(run, "state", "import", file)
    assert "another SECRET_KEY" in str(result.exception)


async def test_verify_finds_a_changed_credit(database_url: str, run: Run, tmp_path: Path) -> None:
    """The difference is reported with its table and user."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    await run_command(run, "state", "import", file)
    await execute_statement(database_url, "UPDATE user_credits SET available_credits = 46 WHERE user_id = 'auth0|1'")
    result = await run_command(run, "state", "verify", file)
    assert result.exit_code == 1
    assert "user_credits differs: (auth0|1)" in result.output
    assert "credit_transactions differs" not in result.output
    assert await fetch_rows(database_url, "SELECT to_regnamespace('state_verify') IS NULL") == [(True,)]


async def test_erased_users_stay_erased(database_url: str, run: Run, tmp_path: Path) -> None:
    """Rows from before an erasure are rejected; an account created after it is a new one."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    await run_command(run, "state", "import", file)
    await run_command(run, "user", "erase", "auth0|1", "--yes")
    result = await run_command(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    assert read_rejects(file) == dict.fromkeys((2, 5, 6, 7), "the person was erased")
    for table in ("user_credits", "credit_transactions", "user_consents", "consent_events"):
        there = f"SELECT count(*) FROM {table} WHERE user_id = 'auth0|1'"  # noqa: S608 - names of ours
        assert await fetch_rows(database_url, there) == [(0,)]
    assert (await run_command(run, "state", "verify", file)).exit_code == 0
    tomorrow = "2999-01-01T00:00:00Z"
    new = snapshot(tmp_path / "new.jsonl", account("auth0|1", 3, created_at=tomorrow))
    assert "2 added" in (await run_command(run, "state", "import", new)).output


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
async def test_a_killed_import_can_be_repeated(
    moment: str, database_url: str, run: Run, tmp_path: Path, large: Path
) -> None:
    """A second import of the same file finishes it, whenever it was killed; no index is lost."""
    before = await fetch_rows(database_url, INDEXES)
    if moment == "moving":
        await run_command(run, "state", "import", snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT))
    command = [sys.executable, "-m", "shopassist", "state", "import", str(large)]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: ASYNC220
    await wait_for(moment, database_url, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert await fetch_rows(database_url, "SELECT count(*) FROM user_credits") != [(LARGE,)]
    other = snapshot(tmp_path / "another.jsonl", *OLD_PRODUCT)
    await wait_for_release(database_url)
    assert "has not ended" in str((await run_command(run, "state", "import", other)).exception)
    result = await run_command(run, "state", "import", large)
    assert result.exit_code == 0, result.output
    assert "gone on with" in result.output
    assert await fetch_rows(database_url, INDEXES) == before
    assert (await run_command(run, "state", "verify", large)).exit_code == 0
    assert (await run_command(run, "credits", "verify")).exit_code == 0
    assert "0 added" in (await run_command(run, "state", "import", large)).output


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


async def wait_for_release(url: str) -> None:
    """Wait until the server has released the lock of the killed import."""
    while await fetch_rows(url, HELD) != [(0,)]:
        await asyncio.sleep(0.05)


LARGE = 25_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of several chunks."""
    path = tmp_path_factory.mktemp("large") / "large.jsonl"
    state_import.write_snapshot(path, 0, LARGE)
    return path


async def test_an_unfinished_import_can_be_discarded(database_url: str, run: Run, tmp_path: Path) -> None:
    """`--discard` allows to import another file."""
    await execute_statement(
        database_url,
        "CREATE SCHEMA state_import;"
        "CREATE TABLE state_import.begun AS SELECT 'other' AS sha256, '' AS phase, '' AS path",
    )
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    assert "--discard" in str((await run_command(run, "state", "import", file)).exception)
    assert (await run_command(run, "state", "import", file, "--discard")).exit_code == 0


async def test_not_during_a_rollout(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands refuse, because users may be in the memory of a server."""
    monkeypatch.setenv("STORAGE", "rollout")
    result = await run_command(run, "state", "export", tmp_path / "state.jsonl")
    assert "STORAGE=rollout" in str(result.exception)


@pytest.mark.slow
async def test_users_erased_during_an_import_stay_erased(
    database_url: str, run: Run, tmp_path: Path, large: Path
) -> None:
    """A user who is erased before their batch is rejected; all others are imported."""
    last = max(state_import.get_user_id(number) for number in range(LARGE))
    await run_command(run, "state", "import", snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT, account(last)))
    command = [sys.executable, "-m", "shopassist", "state", "import", str(large)]
    process = subprocess.Popen(command, start_new_session=True)  # noqa: ASYNC220
    try:
        await wait_for("moving", database_url, process)
        assert (await run_command(run, "user", "erase", last, "--yes")).exit_code == 0
        assert process.poll() is None, "the import ended before the user was erased"
    finally:
        code = await asyncio.to_thread(process.wait)
    assert code == 0
    for table in ("user_credits", "credit_transactions", "user_consents", "consent_events"):
        statement = f"SELECT count(*) FROM {table} WHERE user_id = $1"  # noqa: S608 - names of ours
        assert await fetch_rows(database_url, statement, last) == [(0,)]
    assert await fetch_rows(database_url, "SELECT count(*) FROM user_credits") == [(LARGE + 3,)]  # one of a pseudonym
    assert set(read_rejects(large).values()) == {"the person was erased"}
    assert (await run_command(run, "credits", "verify")).exit_code == 0


async def test_no_export_during_an_erasure(database_url: str, run: Run, tmp_path: Path) -> None:
    """An import of the file would not know about the unfinished erasure."""
    await execute_statement(
        database_url,
        "INSERT INTO erasures (id, subject_hash, is_guest, had_account, asked_by, requested_at, user_id, pseudonym, "
        "counts) VALUES (gen_random_uuid(), 'h', true, true, 'user', now(), 'u', 'p', '{}')",
    )
    file = tmp_path / "state.jsonl"
    assert "being erased" in str((await run_command(run, "state", "export", file)).exception)
    assert not file.exists()
