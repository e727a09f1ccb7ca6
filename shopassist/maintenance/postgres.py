"""Leases, records of runs and vacuum in PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
from sqlalchemy import URL, text

from shopassist.db.database import DatabaseManager
from shopassist.db.dsn import apply_tls_settings, normalise_dsn
from shopassist.db.failures import translate_errors
from shopassist.db.host_selection import HostSelector
from shopassist.db.ports import Clock
from shopassist.db.row_batches import JobResult
from shopassist.db.statements import execute_quoted, fetch, fetch_without_deadline
from shopassist.maintenance.models import (
    NOTE_LENGTH,
    RUN_RETENTION,
    RUNS_KEPT_PER_JOB,
    JobRecord,
    MaintenanceOverview,
    MaintenanceRun,
    RunReport,
)
from shopassist.settings.database import DatabaseConfig, PoolMode

ACQUIRE_LEASE = text("""
INSERT INTO leases AS l (name, holder, expires_at)
SELECT :name, :holder, COALESCE(CAST(:instant AS timestamptz), now()) + CAST(:lifetime AS interval)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE l.holder = excluded.holder OR l.expires_at <= COALESCE(CAST(:instant AS timestamptz), now())
RETURNING holder
""")

RELEASE_LEASE = text("DELETE FROM leases WHERE name = :name AND holder = :holder")

SELECT_LEASE_HOLDER = text("""
SELECT holder FROM leases WHERE name = :name AND expires_at > COALESCE(CAST(:instant AS timestamptz), now())
""")


class PostgresLeases:
    """Implements `Leases`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """The database's clock decides unless `clock` binds an instant."""
        self._manager = manager
        self._clock = clock

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        parameters = {"name": name, "holder": holder, "lifetime": lifetime, "instant": self._clock.instant()}
        return bool(await fetch(self._manager, ACQUIRE_LEASE, repeatable=True, **parameters))

    async def release(self, name: str, holder: str) -> None:
        await fetch(self._manager, RELEASE_LEASE, repeatable=True, name=name, holder=holder)

    async def holder(self, name: str) -> str | None:
        rows = await fetch(
            self._manager, SELECT_LEASE_HOLDER, repeatable=True, name=name, instant=self._clock.instant()
        )
        return str(rows[0]["holder"]) if rows else None


INSERT_RUN = text("""
WITH moment AS (
    SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS finished_at
), newest AS (
    SELECT id FROM maintenance_runs WHERE job = CAST(:job AS text) ORDER BY id DESC LIMIT 1
), repeated AS (
    UPDATE maintenance_runs r
    SET finished_at = m.finished_at, seconds = CAST(:seconds AS double precision), repeats = r.repeats + 1
    FROM newest n, moment m
    WHERE r.id = n.id AND CAST(:did AS bigint) = 0 AND r.did = 0 AND r.outcome = CAST(:outcome AS text)
      AND r.started_by = CAST(:started_by AS text) AND r.note IS NOT DISTINCT FROM CAST(:note AS text)
    RETURNING r.id
)
INSERT INTO maintenance_runs (job, began_at, finished_at, outcome, did, seconds, started_by, note)
SELECT CAST(:job AS text), m.finished_at - make_interval(secs => CAST(:seconds AS double precision)), m.finished_at,
       CAST(:outcome AS text), CAST(:did AS bigint), CAST(:seconds AS double precision), CAST(:started_by AS text),
       CAST(:note AS text)
FROM moment m WHERE NOT EXISTS (SELECT FROM repeated)
""")

SELECT_NEWEST_RUNS = text("""
SELECT DISTINCT ON (job) r.*,
       max(finished_at) FILTER (WHERE outcome = 'done') OVER (PARTITION BY job) AS done_at
FROM maintenance_runs r ORDER BY job, id DESC
""")
SELECT_NOW = text("SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS now")

# The table is small, since this is done to it.
DELETE_OLD_RUNS = text("""
DELETE FROM maintenance_runs WHERE id = ANY(ARRAY(
    SELECT id FROM (
        SELECT id, finished_at, row_number() OVER (PARTITION BY job ORDER BY id DESC) AS place,
               row_number() OVER (PARTITION BY job, outcome ORDER BY id DESC) AS place_of_outcome
        FROM maintenance_runs
    ) AS r
    WHERE place_of_outcome > 1 AND (
        place > CAST(:kept AS bigint)
        OR finished_at < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:age AS interval)
    )
    ORDER BY id LIMIT CAST(:limit AS bigint)
)) RETURNING true
""")


class PostgresMaintenanceRuns:
    """Implements `MaintenanceRuns`."""

    def __init__(self, manager: DatabaseManager, clock: Clock) -> None:
        """The database's clock decides unless `clock` binds an instant."""
        self._manager = manager
        self._clock = clock

    async def record(self, report: RunReport) -> None:
        await fetch(
            self._manager,
            INSERT_RUN,
            job=report.job,
            outcome=report.outcome,
            did=report.result.rows,
            seconds=report.seconds,
            started_by=report.started_by.value,
            note=report.result.note and report.result.note[:NOTE_LENGTH],
            instant=self._clock.instant(),
        )

    async def overview(self) -> MaintenanceOverview:
        rows = await fetch_without_deadline(self._manager, SELECT_NEWEST_RUNS)
        [moment] = await fetch_without_deadline(self._manager, SELECT_NOW, instant=self._clock.instant())
        newest = [MaintenanceRun(**{name: row[name] for name in MaintenanceRun.model_fields}) for row in rows]
        done_at = [row["done_at"] for row in rows]
        return MaintenanceOverview(
            moment["now"], {run.job: JobRecord(run, at) for run, at in zip(newest, done_at, strict=True)}
        )

    async def delete_old(self, limit: int = 1000) -> int:
        parameters = {"kept": RUNS_KEPT_PER_JOB, "age": RUN_RETENTION, "instant": self._clock.instant(), "limit": limit}
        return len(await fetch_without_deadline(self._manager, DELETE_OLD_RUNS, **parameters))


MIN_VACUUM_ROWS = 10_000
"""Below so many rows dead or changed a table is small or fit: reading past them costs less than a vacuum."""

MAX_DEAD_SHARE = 0.3
"""Of all rows: half more than where autovacuum would have come, and what `shopassist doctor` calls bloated."""

MAX_DEAD_ROWS = 1_000_000
"""Whatever the share: in a table of ten million rows autovacuum lets twice as many lie."""

MAX_CHANGED_SHARE = 0.2
"""Of live rows since they were analysed: twice autovacuum's, at which plans begin to be made for another table."""

MAX_FREEZE_AGE = 150_000_000
"""Transactions (`vacuum_freeze_table_age`): from here on a vacuum freezes the whole table. Done at a quiet pace it
spares the one that PostgreSQL forces at 200 million, which gives way to nobody."""

TABLE_TIMEOUT_SECONDS = 600
CLOSE_TIMEOUT_SECONDS = 2.0
VACUUM_SESSION_SETTINGS = {
    # Not the pool's: a vacuum of a large table takes minutes, and holds nobody up.
    "statement_timeout": str(1000 * TABLE_TIMEOUT_SECONDS),
    "lock_timeout": "500",
    # As autovacuum does: it leaves the disk to those who wait for it.
    "vacuum_cost_delay": "2",
    "application_name": "shopassist vacuum",
}

# Who may: the owner, who has been given MAINTAIN (PostgreSQL 17 and later), and the owner of the database.
SELECT_DUE_TABLES = """
SELECT format('%I.%I', s.schemaname, s.relname) AS name, s.relname AS plain,
       pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE') OR c.relacl IS NOT NULL AND EXISTS (
           SELECT FROM aclexplode(c.relacl) a
           WHERE a.privilege_type = 'MAINTAIN' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE'))
       ) AS may
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
JOIN pg_database d ON d.datname = current_database()
WHERE s.schemaname = 'public' AND (
    s.n_dead_tup >= $1 AND (s.n_dead_tup >= $2 * (s.n_live_tup + s.n_dead_tup) OR s.n_dead_tup >= $3)
    OR s.n_mod_since_analyze >= $1 AND s.n_mod_since_analyze >= $4 * s.n_live_tup
    OR age(c.relfrozenxid) >= $5
)
ORDER BY s.n_dead_tup DESC, 1
"""
VACUUM_THRESHOLDS = (MIN_VACUUM_ROWS, MAX_DEAD_SHARE, MAX_DEAD_ROWS, MAX_CHANGED_SHARE, MAX_FREEZE_AGE)

# Neither waits for a table that somebody has locked, nor locks everybody out to give the end of its file back.
VACUUM_TABLE = "VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE false) %s"
LOCK_NOT_AVAILABLE = "55P03"
NEEDS_SESSION_NOTE = "DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this"
NO_PRIVILEGE_NOTE = (
    "may not vacuum {}: run `shopassist db provision` (PostgreSQL 17 and later), or set DATABASE_MIGRATION_URL"
)


class PostgresVacuum:
    """Implements `Vacuum`."""

    def __init__(self, config: DatabaseConfig) -> None:
        """Over the owner's link where there is one, else past any pooler."""
        self._config = config

    async def vacuum(self) -> JobResult:
        url = self._link()
        if url is None:
            return JobResult(note=NEEDS_SESSION_NOTE)
        done: list[str] = []
        left: dict[str, list[str]] = {"may not": [], "taken": []}
        with translate_errors():
            async with _connect_for_vacuum(url, self._config.connect_timeout) as connection:
                for table in await connection.fetch(SELECT_DUE_TABLES, *VACUUM_THRESHOLDS):
                    if not table["may"]:
                        left["may not"].append(table["plain"])
                    elif await _vacuum_table(connection, table["name"]):
                        done.append(table["plain"])
                    else:
                        left["taken"].append(table["plain"])
        return JobResult(len(done), note=_format_vacuum_note(done, left))

    def _link(self) -> URL | None:
        config = self._config
        for link, name in (
            (config.migration_url, "DATABASE_MIGRATION_URL"),
            (config.direct_url, "DATABASE_DIRECT_URL"),
        ):
            if link is not None:
                return apply_tls_settings(normalise_dsn(link.get_secret_value(), name), config, name)
        if config.database_url is None or config.pool_mode is PoolMode.TRANSACTION:
            return None
        return apply_tls_settings(normalise_dsn(config.database_url.get_secret_value()), config)


@asynccontextmanager
async def _connect_for_vacuum(url: URL, seconds: float) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own: the pool's have limits that are too short, and others wait for them."""
    connection = await HostSelector(url).connect(timeout=seconds, server_settings=VACUUM_SESSION_SETTINGS)
    try:
        yield connection
    finally:
        # Not cut: whoever is stopped in the middle has asked the server to stop as well, and that must get there.
        with suppress(TimeoutError):
            await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)


async def _vacuum_table(connection: asyncpg.Connection, table: str) -> bool:
    """Whether nobody had the table locked."""
    said: list[str] = []
    connection.add_log_listener(listener := lambda _, message: said.append(message.sqlstate))
    try:
        await execute_quoted(connection, VACUUM_TABLE, table)
    finally:
        connection.remove_log_listener(listener)
    return LOCK_NOT_AVAILABLE not in said


def _format_vacuum_note(done: list[str], left: dict[str, list[str]]) -> str | None:
    parts = [", ".join(done)] if done else []
    if left["taken"]:
        parts.append(f"locked by others, left for the next time: {', '.join(left['taken'])}")
    if left["may not"]:
        parts.append(NO_PRIVILEGE_NOTE.format(", ".join(left["may not"])))
    return "; ".join(parts) or None
