"""`python -m benchmarks.storage`: disk space of a million users, and WAL written by a question.

A database is filled with 100,000 registered users, each with an account, five ledger rows, a consent record and two
consent events, an idempotent response and three cached answers. Answers are copies of answers from the sample
catalogue.
Then questions are asked, 16 at a time, and their cost is measured: bytes of WAL, CPU of PostgreSQL including the
catalogue
search, and dead row versions.
"""

import asyncio
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
from rich.console import Console
from rich.table import Table

from benchmarks.database import build_settings, run_postgres
from containers import Container
from shopassist.catalog.importer.importer import load_sample
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.logging import configure_logging
from shopassist.query.models import QueryRequest

MILLION = 1_000_000
MODELS = 60
"""Number of different answers; the others are copies."""

ASKED = 1600
AT_ONCE = 16
TABLES = ("user_credits", "credit_transactions", "user_consents", "consent_events", "idempotent_answers", "query_cache")

FILL = """
CREATE TEMPORARY TABLE people AS
SELECT n, 'auth0|' || left(md5(n::text), 24) AS user_id FROM generate_series(1, {users}) n;
CREATE TEMPORARY TABLE models AS SELECT row_number() OVER () - 1 AS number, result FROM query_cache;
TRUNCATE query_cache;
INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
SELECT user_id, false, 46, 50, now() FROM people;
INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after, description)
SELECT user_id, 'allocate', 50, 50, 'Initial credit allocation' FROM people;
INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after, description, operation_id)
SELECT user_id, 'deduct', -1, 50 - turn, 'Credit deducted for message', gen_random_uuid()
FROM generate_series(1, 4) turn, people;
INSERT INTO user_consents (user_id, terms_accepted, marketing_consent)
SELECT user_id, true, false FROM people;
INSERT INTO consent_events (user_id, is_guest, purpose, granted, source, route, request_id)
SELECT user_id, false, purpose, true, 'consents', 'POST /api/consents', replace(gen_random_uuid()::text, '-', '')
FROM unnest(ARRAY['terms', 'marketing']) purpose, people;
INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
SELECT user_id, gen_random_uuid()::text, encode(sha256(user_id::bytea), 'hex'), result, now() + interval '1 day'
FROM people JOIN models ON number = n % {models};
INSERT INTO query_cache (query_hash, result, expires_at)
SELECT encode(sha256((user_id || turn)::bytea), 'hex'), result, now() + interval '1 hour'
FROM generate_series(1, 3) turn, people JOIN models ON number = n % {models}
"""
SIZES = """
SELECT relname AS name, reltuples::bigint AS rows, pg_table_size(oid) AS heap, pg_indexes_size(oid) AS indexes
FROM pg_class WHERE relname = ANY($1) ORDER BY array_position($1, relname::text)
"""
OTHERS = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
CHANGED = (
    "SELECT relname, n_tup_upd AS updated, n_tup_hot_upd AS in_place, n_tup_del AS deleted FROM pg_stat_user_tables"
)
WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), $1::text::pg_lsn)::bigint"


@dataclass(frozen=True, slots=True)
class Cost:
    """Average cost of a question: bytes of WAL, seconds of PostgreSQL's CPU, and dead row versions by table.

    Versions counted in `in_place` were heap-only updates without a new index entry.
    """

    log: float
    cpu: float
    dead: dict[str, float]
    in_place: float


async def ask(container: Container, number: int, turn: int) -> None:
    """Ask a new question as a registered user."""
    kinds = ("phone", "laptop", "5G phone with 8GB RAM", "laptop with 16GB RAM")
    request = QueryRequest(query=f"best {kinds[number % 4]} under ₹{80_000 + 20_000 * turn + 11 * number}")
    reply = await container.query_service().answer(f"bench|{number % 200}", False, request, str(uuid4()))
    assert reply.response.metadata.charged == 1, reply.response


async def create_filled_database(url: str, users: int) -> list[asyncpg.Record]:
    """Fill the tables and return their sizes."""
    await migrate.upgrade(normalise_dsn(url))
    container = Container(settings=build_settings(url))
    await load_sample(container.unit_of_work())
    for number in range(MODELS):
        await ask(container, number, 0)
    await container.shutdown()
    connection = await asyncpg.connect(url)
    try:
        for statement in FILL.format(users=users, models=MODELS).split(";\n"):
            await connection.execute(statement, timeout=900)
        await connection.execute("VACUUM (ANALYZE)", timeout=900)
        return list(await connection.fetch(SIZES, list(TABLES)))
    finally:
        await connection.close()


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU seconds used so far by the processes that still run."""
    files = [file for pid in pids if (file := Path(f"/proc/{pid}/stat")).exists()]
    ticks = [file.read_text(encoding="utf-8").rpartition(")")[2].split()[11:13] for file in files]
    return sum(int(user) + int(system) for user, system in ticks) / os.sysconf("SC_CLK_TCK")


async def changes(connection: asyncpg.Connection) -> tuple[Counter[str], int]:
    """Return the dead row versions so far by table, and how many of them were heap-only."""
    rows = await connection.fetch(CHANGED)
    dead = Counter({row["relname"]: row["updated"] + row["deleted"] for row in rows})
    return dead, sum(row["in_place"] for row in rows)


async def measure_questions(url: str) -> Cost:
    """Ask many questions right after a checkpoint."""
    container = Container(settings=build_settings(url))
    connection = await asyncpg.connect(url)
    numbers = iter(range(ASKED))

    async def caller() -> None:
        for number in numbers:
            await ask(container, number, 2)

    try:
        await asyncio.gather(*(ask(container, number, 1) for number in range(AT_ONCE)))
        await connection.execute("CHECKPOINT")
        dead_before, in_place_before = await changes(connection)
        pids = [row["pid"] for row in await connection.fetch(OTHERS)]
        before, used = await connection.fetchval("SELECT pg_current_wal_lsn()::text"), cpu_seconds(pids)
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        written, used = await connection.fetchval(WRITTEN, before), cpu_seconds(pids) - used
    finally:
        await container.shutdown()  # sessions report their changes when they end
    dead, in_place = await changes(connection)
    await connection.close()
    left = {name: number / ASKED for name, number in (dead - dead_before).items()}
    return Cost(float(written) / ASKED, used / ASKED, left, (in_place - in_place_before) / ASKED)


async def measure(url: str, users: int) -> None:
    """Fill, measure and print."""
    table = Table(
        "table", "rows a user", "B a row", "B a row in indexes", "B a user", "GB a million users", title="Storage"
    )
    total = 0
    for row in await create_filled_database(url, users):
        size = row["heap"] + row["indexes"]
        total += size
        table.add_row(
            row["name"],
            f"{row['rows'] / users:.1f}",
            f"{row['heap'] / row['rows']:,.0f}",
            f"{row['indexes'] / row['rows']:,.0f}",
            f"{size / users:,.0f}",
            f"{size / users * MILLION / 1e9:.2f}",
        )
    table.add_row("all", "", "", "", f"{total / users:,.0f}", f"{total / users * MILLION / 1e9:.2f}")
    console = Console(width=120)
    console.print(table)
    cost = await measure_questions(url)
    console.print(f"A question writes {cost.log:,.0f} B of log and takes {1e6 * cost.cpu:,.0f} µs of PostgreSQL's CPU.")
    dead = ", ".join(f"{number:.2f} of {name}" for name, number in sorted(cost.dead.items()))
    console.print(f"Row versions that it leaves dead: {dead}; {cost.in_place:.2f} of them in place.")


def main(arguments: list[str]) -> None:
    """`--quick` fills a tenth."""
    configure_logging("warning")
    users = 10_000 if "--quick" in arguments else 100_000
    with run_postgres() as (url, _):
        asyncio.run(measure(url, users))


if __name__ == "__main__":
    main(sys.argv[1:])
