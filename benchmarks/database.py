"""The benchmark's own durable PostgreSQL, filled with guests who have credits; and pgbench."""

import asyncio
import re
import resource
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from benchmarks.workers import Sample
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.embedded.programs import find_binaries
from shopassist.db.embedded.server import EmbeddedPostgres
from shopassist.settings import AssistantSettings, Settings, Storage, StorageSettings
from shopassist.settings.database import DatabaseConfig

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
SERVER = {
    **DURABLE,
    "max_connections": "400",
    "shared_buffers": "1GB",
    # A checkpoint would slow only one of the two measurements.
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
}
TRANSACTIONS_A_USER = 10
CONNECTIONS_A_SECOND = 80
FILL = """
INSERT INTO user_credits (user_id, is_guest, available_credits, max_credits, last_reset_timestamp)
SELECT 'bench-' || lpad(n::text, 7, '0'), true, 1000000000, 1000000000, now() FROM generate_series(0, {users} - 1) n;
ALTER TABLE credit_transactions DROP CONSTRAINT pk_credit_transactions;
DROP INDEX ix_credit_transactions_user_id_id;
INSERT INTO credit_transactions (user_id, transaction_type, amount, balance_after, description)
SELECT 'bench-' || lpad((n % {users})::text, 7, '0'), 'allocate', 100000000, 100000000 * (1 + n / {users}), 'Fill'
FROM generate_series(0::bigint, {transactions} - 1) n;
ALTER TABLE credit_transactions ADD CONSTRAINT pk_credit_transactions PRIMARY KEY (id);
CREATE INDEX ix_credit_transactions_user_id_id ON credit_transactions (user_id, id);
INSERT INTO query_cache (query_hash, result, cached_at, expires_at)
SELECT 'bench-' || lpad(n::text, 7, '0'), '{{"products": [], "recommendations_summary": "none"}}',
       now(), now() + interval '1 day'
FROM generate_series(0, 9999) n
"""
PGBENCH_DEBIT = r"""
\set n random(0, 9999)
WITH debit AS (
    UPDATE user_credits SET available_credits = available_credits - 1, updated_at = now()
    WHERE user_id = 'bench-' || lpad(:n::text, 7, '0') AND available_credits >= 1 RETURNING user_id, available_credits
)
INSERT INTO credit_transactions (user_id, transaction_type, amount, description, balance_after)
SELECT user_id, 'deduct', -1, 'Credit deducted for message', available_credits FROM debit;
"""


def build_settings(url: str) -> Settings:
    """Return the product's default settings, on the database at `url`."""
    return Settings(
        database=DatabaseConfig(database_url=SecretStr(url)),
        storage=StorageSettings(storage=Storage.POSTGRES),
        assistant=AssistantSettings(sample_catalogue=False),
    )


@contextmanager
def run_postgres(settings: Mapping[str, str] = SERVER) -> Iterator[tuple[str, Path]]:
    """Run a server for the length of the block; yield its connection string and a folder for other files."""
    with tempfile.TemporaryDirectory(prefix="shopassist-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        server = EmbeddedPostgres(folder / "data", settings=settings)
        try:
            yield server.start(), folder
        finally:
            server.stop()


async def create_filled_database(server: str, name: str, users: int) -> str:
    """Create a database with this many users and ten times as many transactions; return its connection string."""
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = f"{server.rpartition('/')[0]}/{name}"
    await migrate.upgrade(normalise_dsn(url))
    connection = await asyncpg.connect(url)
    try:
        for statement in FILL.format(users=users, transactions=users * TRANSACTIONS_A_USER).split(";\n"):
            await connection.execute(statement, timeout=900)
        await connection.execute("VACUUM (ANALYZE)", timeout=900)
        await connection.execute("CHECKPOINT", timeout=900)
    finally:
        await connection.close()
    return url


class Pgbench:
    """PostgreSQL's load generator with the plain debit, one prepared statement per transaction."""

    def __init__(self, url: str, folder: Path) -> None:
        """Write its script into `folder`."""
        self._url = url
        self._program = str(Path(find_binaries().program("postgres")).with_name("pgbench"))
        self._script = folder / "debit.sql"
        self._script.write_text(PGBENCH_DEBIT, encoding="ascii")

    def measure(self, clients: int, seconds: float) -> Sample:
        """Run this many clients on both cores; connecting counts for the duration, not for the rate."""
        whole = round(seconds + clients / CONNECTIONS_A_SECOND + 0.5)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [
                *(self._program, "--no-vacuum", "--protocol=prepared", f"--file={self._script}"),
                *(f"--client={clients}", f"--jobs={min(clients, 2)}", f"--time={whole}", self._url),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if "tps" not in done.stdout:
            raise RuntimeError(f"pgbench measured nothing: {done.stderr.strip()[:500]}")
        operations = int(re.findall(r"actually processed: (\d+)", done.stdout)[0])
        rate = float(re.findall(r"tps = ([\d.]+)", done.stdout)[0])
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Sample(operations, operations / rate, cpu)


def fill(server: str, name: str, users: int) -> str:
    """Run `create_filled_database` without a running event loop."""
    return asyncio.run(create_filled_database(server, name, users))
