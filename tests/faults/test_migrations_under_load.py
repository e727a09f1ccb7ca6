"""Every migration, up and down, on large tables under writes: no lock is waited for longer than a second.

`MIGRATED_USERS` is the number of users, with five transactions each (`make test-migrations`: 1,000,000). Writers use
the
oldest schema, like servers of an earlier version during a deployment; some transactions stay open for a while, which
delays the locks of a migration.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn

USERS = int(os.environ.get("MIGRATED_USERS", "20000"))
WRITERS = 8
PAUSE_SECONDS = 0.02
OPEN_SECONDS = 1.2
LONGEST_WAIT_SECONDS = 1.0
LOOK_SECONDS = 0.01

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FILL = {
    "0001": """
    INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
    SELECT 'user ' || n, n % 3 = 0, 50, 50, now() FROM generate_series(1, {users}) n;
    INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after, description)
    SELECT 'user ' || (n % {users} + 1), 'allocate', 10, 10 * (n / {users} + 1), 'opening'
    FROM generate_series(0, 5 * {users} - 1) n;
    INSERT INTO user_consents (user_id, terms_accepted, marketing_consent)
    SELECT 'user ' || n, true, n % 2 = 0 FROM generate_series(1, {users}) n;
    INSERT INTO query_cache (query_hash, result, expires_at)
    SELECT md5(n::text) || md5(n::text), jsonb_build_object('n', n), now() + interval '1 hour'
    FROM generate_series(1, {users} / 10) n;
    """,
    "0002": """
    INSERT INTO credit_holds (hold_id, user_id, amount, expires_at)
    SELECT gen_random_uuid(), 'user ' || n, 1, now() FROM generate_series(1, {users} / 50) n;
    UPDATE user_credits SET available_credits = available_credits - 1, held_credits = 1
    WHERE user_id IN (SELECT user_id FROM credit_holds);
    """,
    "0004": """
    INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
    SELECT 'user ' || n, 'key', md5(n::text), jsonb_build_object('user_id', 'user ' || n, 'answer', repeat('a', 300)),
           now() + interval '1 day'
    FROM generate_series(1, {users}) n;
    """,
}
"""Rows for the tables of each revision."""
WRITES = (
    """
    WITH paid AS (
        UPDATE user_credits SET available_credits = available_credits - 1
        WHERE user_id = $1 AND available_credits > 0 RETURNING user_id, available_credits
    )
    INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after, description)
    SELECT user_id, 'deduct', -1, available_credits, 'written meanwhile' FROM paid
    """,
    """
    INSERT INTO user_consents (user_id, terms_accepted, marketing_consent) VALUES ($1, true, true)
    ON CONFLICT (user_id) DO UPDATE SET marketing_consent = NOT user_consents.marketing_consent, updated_at = now()
    """,
    """
    INSERT INTO query_cache (query_hash, result, expires_at) VALUES (md5($1), '{}', now() + interval '1 hour')
    ON CONFLICT (query_hash) DO UPDATE SET expires_at = excluded.expires_at
    """,
    """
    INSERT INTO idempotent_answers (user_id, idempotency_key, request_hash, response, expires_at)
    VALUES ($1, gen_random_uuid()::text, '', '{}', now()) ON CONFLICT DO NOTHING
    """,
)
# CREATE INDEX CONCURRENTLY waits for other transactions, and no transaction waits for it.
LONGEST_WAIT = """
SELECT extract(epoch FROM max(clock_timestamp() - waitstart)) FROM pg_locks
WHERE NOT granted AND locktype <> 'virtualxid'
"""
DRIFTING = """
SELECT count(*) FROM user_credits JOIN (SELECT user_id, sum(amount) FROM credit_transactions GROUP BY 1) ledger
USING (user_id) WHERE sum <> available_credits + held_credits
"""


class Writers:
    """Writes continuously and records the results."""

    def __init__(self, url: str) -> None:
        """Prepare writers to the database at `url`."""
        self._url = url
        self._number = 0
        self._working = False
        self.written = self.paid = 0
        self.slowest_seconds = self.longest_wait_seconds = 0.0
        self.refused: list[str] = []

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Write for the length of the block."""
        self._working = True
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for work in (*[self._write] * WRITERS, self._keep_open, self._look):
                connection = await asyncpg.connect(self._url, server_settings={"lock_timeout": "1s"})
                stack.push_async_callback(connection.close)
                group.create_task(work(connection))
            yield
            self._working = False  # not cancelled: count the writes in progress

    async def _write(self, connection: asyncpg.Connection) -> None:
        while self._working:
            self._number += 1
            kind = self._number % len(WRITES)
            began = time.monotonic()
            with suppress(asyncpg.UndefinedTableError):
                try:
                    status = await connection.execute(WRITES[kind], f"user {self._number * 7919 % USERS + 1}")
                    self.written += 1
                    self.paid += kind == 0 and status == "INSERT 0 1"
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
                    self.refused.append(str(error))
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _keep_open(self, connection: asyncpg.Connection) -> None:
        """Read from every table that exists throughout, and keep the transaction open for a while."""
        while self._working:
            async with connection.transaction():
                for table in ("user_credits", "credit_transactions", "user_consents"):
                    await connection.execute(f"SELECT FROM {table} LIMIT 1")
                await asyncio.sleep(OPEN_SECONDS)
            await asyncio.sleep(OPEN_SECONDS)

    async def _look(self, connection: asyncpg.Connection) -> None:
        while self._working:
            waited = float(await connection.fetchval(LONGEST_WAIT) or 0)
            self.longest_wait_seconds = max(self.longest_wait_seconds, waited)
            await asyncio.sleep(LOOK_SECONDS)


async def test_every_migration_on_large_tables_under_writes(empty_database_url: str, tell: Any) -> None:
    """No wait over a second, no refusal, no lost write; the oldest schema is created and dropped without writers."""
    url, revisions = normalise_dsn(empty_database_url), migrate.list_known_revisions()
    connection = await asyncpg.connect(empty_database_url)
    await migrate.upgrade(url, revisions[0])
    await connection.execute(FILL[revisions[0]].format(users=USERS))
    writers = Writers(empty_database_url)
    async with writers.at_work():
        for revision in revisions[1:]:
            await timed(writers, tell, f"up to {revision}", migrate.upgrade(url, revision))
            if revision in FILL:
                await connection.execute(FILL[revision].format(users=USERS))
        for revision in revisions[-2::-1]:
            await timed(writers, tell, f"down to {revision}", migrate.downgrade(url, revision))
        await timed(writers, tell, f"up from {revisions[0]} at once", migrate.upgrade(url))
    paid = await connection.fetchval("SELECT count(*) FROM credit_transactions WHERE description = 'written meanwhile'")
    assert (paid, await connection.fetchval(DRIFTING)) == (writers.paid, 0)
    assert writers.written > 100
    assert writers.refused == []
    assert writers.longest_wait_seconds < LONGEST_WAIT_SECONDS
    await migrate.downgrade(url, "base")
    await connection.close()


async def timed(writers: Writers, tell: Any, what: str, step: Any) -> None:
    """Run a migration and print its duration and the longest wait of others."""
    writers.slowest_seconds = 0.0
    before, began = writers.longest_wait_seconds, time.monotonic()
    writers.longest_wait_seconds = 0.0
    await step
    tell(
        f"{what}, {USERS:,} users",
        seconds=round(time.monotonic() - began, 2),
        longest_wait_for_a_lock=round(writers.longest_wait_seconds, 3),
        slowest_write=round(writers.slowest_seconds, 3),
    )
    writers.longest_wait_seconds = max(before, writers.longest_wait_seconds)
