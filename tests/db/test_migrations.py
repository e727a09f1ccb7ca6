"""Migrations: they match the models, keep rows, run once, and fail step by step."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.errors import MigrationError, StartupError
from tests.support.helpers import execute

CATALOGUE_OF_RULES = """
SELECT 'constraint', c.conrelid::regclass::text, c.conname::text, pg_get_constraintdef(c.oid)
FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
WHERE n.nspname = 'public' AND c.conrelid <> 0 AND c.conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index', tablename::text, indexname::text, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'column', table_name::text, column_name::text,
       concat_ws(' ', data_type, character_maximum_length, numeric_precision, numeric_scale, is_nullable,
                 column_default, is_identity, identity_generation, generation_expression)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
UNION ALL
SELECT 'options', relname::text, '', array_to_string(reloptions, ',') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
ORDER BY 1, 2, 3
"""

FILL = """
INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
SELECT 'user ' || n, n % 3 = 0, n % 51, 50, now() - n * interval '1 minute' FROM generate_series(1, 500) n;
INSERT INTO credit_transactions (user_id, transaction_type, amount, description, balance_after)
SELECT 'user ' || n % 500, 'allocate', n, nullif('row ₹ ' || n, 'row ₹ 7'), n FROM generate_series(1, 2000) n;
INSERT INTO user_consents (user_id, terms_accepted, marketing_consent)
SELECT 'user ' || n, true, n % 2 = 0 FROM generate_series(1, 300) n;
INSERT INTO query_cache (query_hash, result, expires_at)
SELECT md5(n::text) || md5(n::text), jsonb_build_object('n', n), now() + interval '1 hour'
FROM generate_series(1, 300) n;
"""
FILL_BY_REVISION = {
    "0001": FILL,
    "0002": """
    INSERT INTO credit_holds (hold_id, user_id, amount, expires_at)
    SELECT gen_random_uuid(), 'user ' || n, 1, now() FROM generate_series(1, 50) n;
    INSERT INTO leases VALUES ('scheduler', 'a process', now());
    """,
    "0004": """
    UPDATE credit_holds SET question_hash = md5(user_id);
    INSERT INTO idempotent_answers VALUES ('a', 'k', 'h', '{}', now());
    """,
    "0007": """
    INSERT INTO consent_notices (purpose, version, locale, sha256, "text", binding_from)
    VALUES ('terms', 1, 'en', encode(sha256(convert_to('Be good ₹', 'UTF8')), 'hex'), 'Be good ₹', now());
    INSERT INTO consent_events (user_id, is_guest, purpose, granted, notice_id, source)
    SELECT 'user ' || n, n % 2 = 0, 'terms', true, 1, 'consents' FROM generate_series(1, 100) n;
    INSERT INTO admin_audit (actor, act, target) VALUES ('a', 'x', 'user 1');
    """,
    "0011": """
    INSERT INTO erasures (id, subject_hash, is_guest, had_account, asked_by, requested_at, finished_at, counts)
    VALUES (gen_random_uuid(), 'hash', true, true, 'user', now(), now(), '{"account": 1}');
    INSERT INTO erased_balances VALUES ('hash', true, 3, now(), now());
    INSERT INTO guest_merges VALUES ('guest', 'user 1', now(), '{}');
    """,
    "0013": """
    INSERT INTO maintenance_runs (job, began_at, finished_at, outcome, did, seconds, started_by)
    VALUES ('vacuum', now(), now(), 'done', 1, 0.5, 'scheduler');
    """,
    "0005": "INSERT INTO cache_epochs (name, epoch) VALUES ('answers', 3)",
    "0006": "INSERT INTO guest_networks (day, network, accounts) VALUES ('2026-01-01', 'hash', 3)",
    "0003": """
    INSERT INTO products (source, source_id, title, attributes, link, words, price, currency)
    SELECT 'test', n, 'Phone ' || n, '{}', 'https://example.in/', ARRAY['phone'], n, 'INR'
    FROM generate_series(1, 200) n;
    """,
}


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connect to a database without tables."""
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


Rows = dict[str, list[dict[str, Any]]]


async def rows_of(connection: asyncpg.Connection) -> Rows:
    """Return every row of every table."""
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    names = [row["tablename"] for row in tables if row["tablename"] != "alembic_version"]
    return {
        name: [dict(row) for row in await connection.fetch(f"SELECT * FROM {name} ORDER BY 1, 2")]  # noqa: S608
        for name in names
    }


def as_in(rows: Rows, older: Rows) -> Rows:
    """Return the part of the rows that an older schema has tables and columns for."""
    return {table: [{name: row[name] for name in (older[table] or [row])[0]} for row in rows[table]] for table in older}


async def test_every_step_keeps_the_rows_that_the_older_schema_can_hold(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    """Up, filling each table as it comes; down, comparing every row with what was there on the way up; up again."""
    url = normalise_dsn(empty_database_url)
    seen = {"base": await rows_of(connection)}
    for revision in migrate.list_known_revisions():
        await migrate.upgrade(url, revision)
        await connection.execute(FILL_BY_REVISION.get(revision, "SELECT 1"))
        seen[revision] = await rows_of(connection)
    stops = ["base", *migrate.list_known_revisions()]
    for revision in stops[-2:0:-1]:
        await migrate.downgrade(url, revision)
        assert await rows_of(connection) == seen[revision]
    await migrate.upgrade(url)
    oldest = seen[migrate.list_known_revisions()[0]]
    assert as_in(await rows_of(connection), oldest) == oldest
    await migrate.downgrade(url, "base")
    assert await rows_of(connection) == seen["base"]


async def test_going_back_gives_open_holds_back(empty_database_url: str, connection: asyncpg.Connection) -> None:
    """A schema without holds has the held credits available, so that balances stay the sum of the ledger."""
    url = normalise_dsn(empty_database_url)
    await migrate.upgrade(url)
    await connection.execute(
        "INSERT INTO user_credits (user_id, is_guest, available_credits, held_credits, max_credits, "
        "last_reset_timestamp) VALUES ('a', false, 48, 2, 50, now())"
    )
    await migrate.downgrade(url, "0001")
    assert await connection.fetchval("SELECT (available_credits, held_credits) FROM user_credits") == (50, 0)


async def test_an_erasure_under_way_is_not_dropped(empty_database_url: str, connection: asyncpg.Connection) -> None:
    """A downgrade would leave rows without the information that they are to be erased."""
    url = normalise_dsn(empty_database_url)
    await migrate.upgrade(url)
    await connection.execute(
        "INSERT INTO erasures (id, subject_hash, is_guest, had_account, asked_by, requested_at, user_id, pseudonym, "
        "counts) VALUES (gen_random_uuid(), 'h', true, true, 'user', now(), 'u', 'p', '{}')"
    )
    with pytest.raises(MigrationError, match="an erasure is under way"):
        await migrate.downgrade(url, "0005")
    await connection.execute("UPDATE erasures SET finished_at = now(), user_id = NULL, pseudonym = NULL")
    await migrate.downgrade(url, "0005")


async def test_the_history_of_consent_begins_with_the_records(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    """What records say is granted is an event of that time; who was only not asked about marketing decided nothing."""
    url = normalise_dsn(empty_database_url)
    await migrate.upgrade(url, "0001")
    await connection.execute(
        "INSERT INTO user_consents VALUES ('a', true, true, '2026-01-01', '2026-02-01'), "
        "('b', true, false, '2026-01-02', '2026-01-02')"
    )
    await migrate.upgrade(url)
    events = await connection.fetch("SELECT * FROM consent_events ORDER BY user_id, purpose DESC")
    assert [(e["user_id"], e["purpose"], e["granted"], f"{e['timestamp']:%m-%d}") for e in events] == [
        ("a", "terms", True, "01-01"),
        ("a", "marketing", True, "02-01"),
        ("b", "terms", True, "01-02"),
    ]
    assert {(e["source"], e["is_guest"], e["notice_id"]) for e in events} == {("earlier_record", False, None)}


async def test_models_and_migrations_do_not_drift(template_url: str, empty_database_url: str) -> None:
    """Columns, defaults, indexes and constraints, with their names, are the same by models as by migrations."""
    await execute(empty_database_url, "CREATE EXTENSION pg_trgm")
    engine = create_async_engine(normalise_dsn(empty_database_url))
    async with engine.begin() as by_models:
        await by_models.run_sync(SQLModel.metadata.create_all)
    await engine.dispose()
    rules = []
    for url in (template_url, empty_database_url):
        connection = await asyncpg.connect(url)
        rules.append([tuple(row) for row in await connection.fetch(CATALOGUE_OF_RULES)])
        await connection.close()
    assert rules[0] == rules[1]


async def test_alembic_sees_no_difference(template_url: str) -> None:
    """Autogenerate would write an empty migration."""
    engine = create_async_engine(normalise_dsn(template_url), poolclass=NullPool)

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), SQLModel.metadata))

    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()
    assert found == []


async def test_the_newest_script_is_alembics_head() -> None:
    """The check at start, which reads file names alone, agrees with Alembic."""
    assert migrate.list_known_revisions() == [revision for revision, _ in migrate.list_revisions()]


async def test_many_processes_at_once_migrate_once(empty_database_url: str, connection: asyncpg.Connection) -> None:
    """Six processes start on an empty database: all succeed, and exactly one has done the work."""
    program = (
        "import asyncio, sys; from shopassist.db import migrate; from shopassist.db.dsn import normalise_dsn\n"
        "print(asyncio.run(migrate.ensure_current(normalise_dsn(sys.argv[1]))))"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, empty_database_url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(6)
    ]
    outputs = [(await process.communicate())[0].decode().strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert sorted(outputs) == ["False"] * 5 + ["True"]
    assert await migrate.get_current_revision(normalise_dsn(empty_database_url)) == migrate.list_known_revisions()[-1]


BROKEN = """
from alembic import op
revision = "9999"
down_revision = "{head}"
def upgrade():
    op.execute("ALTER TABLE user_credits ADD COLUMN added int")
    op.execute("{then}")
def downgrade():
    op.execute("ALTER TABLE user_credits DROP COLUMN added")
"""
ADDED = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'added'"


def with_one_more(monkeypatch: pytest.MonkeyPatch, folder: Path, then: str) -> None:
    """Add a migration that ends with a statement."""
    folder /= "migrations"
    shutil.copytree(migrate.MIGRATIONS_FOLDER, folder)
    (folder / "versions" / "9999_more.py").write_text(BROKEN.format(head=migrate.list_known_revisions()[-1], then=then))
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", folder)


async def test_a_migration_that_fails_changes_nothing(
    empty_database_url: str, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its step is undone, earlier ones stay, and the error names the present revision and the reason."""
    head = migrate.list_known_revisions()[-1]
    with_one_more(monkeypatch, tmp_path, "SELECT 1/0")
    for _ in range(2):
        with pytest.raises(MigrationError, match=f"at revision {head}: division by zero"):
            await migrate.ensure_current(normalise_dsn(empty_database_url))
        assert await migrate.get_current_revision(normalise_dsn(empty_database_url)) == head
        assert await connection.fetchval(ADDED) == 0


async def test_a_migration_gives_way_and_tries_again(
    empty_database_url: str, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table with a long-running reader is not blocked for others meanwhile."""
    url = normalise_dsn(empty_database_url)
    await migrate.upgrade(url)
    with_one_more(monkeypatch, tmp_path, "SELECT 1")
    reader = connection.transaction()
    await reader.start()
    await connection.execute("LOCK TABLE user_credits IN ACCESS SHARE MODE")
    upgrade = asyncio.create_task(migrate.upgrade(url))
    another = await asyncpg.connect(empty_database_url)
    for _ in range(20):
        async with asyncio.timeout(1):
            await another.execute("UPDATE user_credits SET max_credits = 1")
        await asyncio.sleep(0.1)
    assert not upgrade.done()
    await reader.commit()
    await upgrade
    assert await another.fetchval(ADDED) == 1
    await another.close()


async def test_an_index_whose_build_was_interrupted_is_built_anew(
    empty_database_url: str, connection: asyncpg.Connection
) -> None:
    """An interrupted concurrent build leaves an invalid index, which would be useless."""
    url = normalise_dsn(empty_database_url)
    await migrate.upgrade(url, "0007")
    await connection.execute("CREATE INDEX ix_idempotent_answers_adjusted_user ON idempotent_answers (expires_at)")
    await migrate.upgrade(url)
    definition = await connection.fetchval("SELECT pg_get_indexdef('ix_idempotent_answers_adjusted_user'::regclass)")
    assert "user_id" in definition


async def test_steps_are_counted_from_where_the_schema_is(empty_database_url: str) -> None:
    """Retries never undo more steps than requested."""
    url, revisions = normalise_dsn(empty_database_url), migrate.list_known_revisions()
    await migrate.upgrade(url)
    await migrate.downgrade(url, "-2")
    assert await migrate.get_current_revision(url) == revisions[-3]
    with pytest.raises(MigrationError, match="not so many steps"):
        await migrate.downgrade(url, f"-{len(revisions)}")


async def test_a_database_ahead_of_the_code_is_refused(database_url: str) -> None:
    """An older version does not run on a newer schema, and says which it found."""
    await execute(database_url, "UPDATE alembic_version SET version_num = '9998'")
    with pytest.raises(MigrationError, match="9998"):
        await migrate.ensure_current(normalise_dsn(database_url))


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("postgresql://app:x@127.0.0.1:1/none", "cannot be reached"),
        ("postgresql://app:hidden@{host}/none", "refuses the user or password"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    server_url: str, link: str, message: str
) -> None:
    """The message is one sentence without the password."""
    link = link.format(host=server_url.split("@")[1].split("/", maxsplit=1)[0])
    with pytest.raises(StartupError, match=message) as caught:
        await migrate.ensure_current(normalise_dsn(link))
    assert "hidden" not in caught.value.detail


async def test_the_project_may_be_in_a_folder_with_any_name(
    empty_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with what configuration files and URLs treat specially."""
    folder = tmp_path / "50% off %(here)s #1 it's a 'shop' ü"
    shutil.copytree(migrate.MIGRATIONS_FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(migrate, "MIGRATIONS_FOLDER", folder)
    assert len(migrate.list_revisions()) == len(migrate.list_known_revisions())
    await migrate.upgrade(normalise_dsn(empty_database_url), "0003")
    assert await migrate.get_current_revision(normalise_dsn(empty_database_url)) == "0003"
