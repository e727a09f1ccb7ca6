"""Leases, records of runs and vacuum in PostgreSQL."""

from contextlib import suppress
from datetime import timedelta

import asyncpg
from sqlalchemy import text

from shopassist.db.connections import HostSelector
from shopassist.db.database import DatabaseManager
from shopassist.db.dsn import find_session_dsn
from shopassist.db.failures import translate_errors
from shopassist.db.ports import Clock, JobResult
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
from shopassist.settings import Settings

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
        """`clock` may bind an instant; otherwise the database's clock decides."""
        self._manager = manager
        self._clock = clock

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        parameters = {"name": name, "holder": holder, "lifetime": lifetime, "instant": self._clock.instant()}
        return bool(await fetch(self._manager, ACQUIRE_LEASE, repeatable=True, **parameters))

    async def release(self, name: str, holder: str) -> None:
        await fetch(self._manager, RELEASE_LEASE, repeatable=True, name=name, holder=holder)

    async def holder(self, name: str) -> str | None:
        instant = self._clock.instant()
        rows = await fetch(self._manager, SELECT_LEASE_HOLDER, repeatable=True, name=name, instant=instant)
        return str(rows[0]["holder"]) if rows else None


INSERT_RUN = text("""
WITH run AS (
    SELECT CAST(:job AS text) AS job, CAST(:outcome AS text) AS outcome, CAST(:did AS bigint) AS did,
           CAST(:seconds AS double precision) AS seconds, CAST(:started_by AS text) AS started_by,
           CAST(:note AS text) AS note, COALESCE(CAST(:instant AS timestamptz), now()) AS finished_at
), repeated AS (
    UPDATE maintenance_runs r SET finished_at = run.finished_at, seconds = run.seconds, repeats = r.repeats + 1
    FROM run
    WHERE r.id = (SELECT id FROM maintenance_runs WHERE job = run.job ORDER BY id DESC LIMIT 1) AND run.did = 0
      AND (r.did, r.outcome, r.started_by) = (run.did, run.outcome, run.started_by)
      AND r.note IS NOT DISTINCT FROM run.note
    RETURNING r.id
)
INSERT INTO maintenance_runs (job, began_at, finished_at, outcome, did, seconds, started_by, note)
SELECT job, finished_at - make_interval(secs => seconds), finished_at, outcome, did, seconds, started_by, note
FROM run WHERE NOT EXISTS (SELECT FROM repeated)
""")

SELECT_LAST_RUNS = text("""
SELECT DISTINCT ON (job) r.*,
       max(finished_at) FILTER (WHERE outcome = 'done') OVER (PARTITION BY job) AS last_success_at
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
        """`clock` may bind an instant; otherwise the database's clock decides."""
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
        records = {}
        for row in await fetch_without_deadline(self._manager, SELECT_LAST_RUNS):
            run = MaintenanceRun(**{name: row[name] for name in MaintenanceRun.model_fields})
            records[run.job] = JobRecord(run, row["last_success_at"])
        [moment] = await fetch_without_deadline(self._manager, SELECT_NOW, instant=self._clock.instant())
        return MaintenanceOverview(moment["now"], records)

    async def delete_old(self, limit: int = 1000) -> int:
        parameters = {"kept": RUNS_KEPT_PER_JOB, "age": RUN_RETENTION, "instant": self._clock.instant(), "limit": limit}
        return len(await fetch_without_deadline(self._manager, DELETE_OLD_RUNS, **parameters))


MIN_VACUUM_ROWS = 10_000
"""Tables with fewer dead or changed rows are left alone: reading past them costs less than a vacuum."""

# A vacuum of a large table takes minutes. Its cost delay is autovacuum's, so that it leaves the disk to requests.
VACUUM_SESSION_SETTINGS = {
    "statement_timeout": "600000",
    "lock_timeout": "500",
    "vacuum_cost_delay": "2",
    "application_name": "shopassist vacuum",
}
CLOSE_TIMEOUT_SECONDS = 2.0

# Due tables: 30 % of the rows dead (half more than autovacuum's threshold) or a million; a fifth of the live rows
# changed since the last ANALYZE; or 150 million transactions since the last freeze, before PostgreSQL forces one at 200
# million. `is_permitted`: the table's owner, the owner of the database, or a role with MAINTAIN (PostgreSQL 17).
SELECT_DUE_TABLES = """
SELECT format('%I.%I', s.schemaname, s.relname) AS quoted_name, s.relname AS name,
       pg_has_role(c.relowner, 'USAGE') OR pg_has_role(d.datdba, 'USAGE') OR c.relacl IS NOT NULL AND EXISTS (
           SELECT FROM aclexplode(c.relacl) a
           WHERE a.privilege_type = 'MAINTAIN' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE'))
       ) AS is_permitted
FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
JOIN pg_database d ON d.datname = current_database()
WHERE s.schemaname = 'public' AND (
    s.n_dead_tup >= $1 AND (s.n_dead_tup >= 0.3 * (s.n_live_tup + s.n_dead_tup) OR s.n_dead_tup >= 1000000)
    OR s.n_mod_since_analyze >= $1 AND s.n_mod_since_analyze >= 0.2 * s.n_live_tup
    OR age(c.relfrozenxid) >= 150000000
)
ORDER BY s.n_dead_tup DESC, 1
"""

NEEDS_SESSION_NOTE = "DB_POOL_MODE=transaction: set DATABASE_DIRECT_URL or DATABASE_MIGRATION_URL for this"
NO_PRIVILEGE_NOTE = (
    "may not vacuum {}: run `shopassist db provision` (PostgreSQL 17 and later), or set DATABASE_MIGRATION_URL"
)
LOCKED_NOTE = "locked by others, left for the next time: {}"


async def vacuum_due_tables(settings: Settings) -> JobResult:
    """Vacuum and analyse the tables that need it; the result counts tables.

    Connects with the owner's DSN in `settings`, or with one that bypasses a pooler.
    """
    url = find_session_dsn(settings)
    if url is None:
        return JobResult(note=NEEDS_SESSION_NOTE)
    vacuumed, locked, refused = [], [], []
    with translate_errors():
        # Not a pooled connection: the pool's statement timeout is too short, and requests wait for its connections.
        connection = await HostSelector(url).connect(
            timeout=settings.database.connect_timeout, server_settings=VACUUM_SESSION_SETTINGS
        )
        try:
            for table in await connection.fetch(SELECT_DUE_TABLES, MIN_VACUUM_ROWS):
                if not table["is_permitted"]:
                    refused.append(table["name"])
                    continue
                try:
                    # Truncation would lock out readers.
                    await execute_quoted(connection, "VACUUM (ANALYZE, TRUNCATE false) %s", table["quoted_name"])
                    vacuumed.append(table["name"])
                except asyncpg.LockNotAvailableError:
                    locked.append(table["name"])
        finally:
            # A cancelled vacuum sends a cancel request first, which an abrupt end of the connection would lose.
            with suppress(TimeoutError):
                await connection.close(timeout=CLOSE_TIMEOUT_SECONDS)
    notes = (("{}", vacuumed), (LOCKED_NOTE, locked), (NO_PRIVILEGE_NOTE, refused))
    note = "; ".join(template.format(", ".join(tables)) for template, tables in notes if tables)
    return JobResult(len(vacuumed), note=note or None)
