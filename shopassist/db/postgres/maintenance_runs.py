"""What jobs have done, in PostgreSQL."""

from sqlalchemy import text

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres.driver import fetch, fetch_patiently
from shopassist.models import MaintenanceRun
from shopassist.models.maintenance import KEPT_FOR, KEPT_RUNS, NOTE_LENGTH, JobRecord, Overview, RunReport

RECORD = text("""
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

OVERVIEW = text("""
SELECT DISTINCT ON (job) r.*,
       max(finished_at) FILTER (WHERE outcome = 'done') OVER (PARTITION BY job) AS done_at
FROM maintenance_runs r ORDER BY job, id DESC
""")
NOW = text("SELECT COALESCE(CAST(:instant AS timestamptz), now()) AS now")

# The table is small, since this is done to it.
FORGET = text("""
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
            RECORD,
            job=report.job,
            outcome=report.outcome,
            did=report.work.did,
            seconds=report.seconds,
            started_by=report.started_by.value,
            note=report.work.note and report.work.note[:NOTE_LENGTH],
            instant=self._clock.instant(),
        )

    async def overview(self) -> Overview:
        rows = await fetch_patiently(self._manager, OVERVIEW)
        [moment] = await fetch_patiently(self._manager, NOW, instant=self._clock.instant())
        newest = [MaintenanceRun(**{name: row[name] for name in MaintenanceRun.model_fields}) for row in rows]
        done_at = [row["done_at"] for row in rows]
        return Overview(moment["now"], {run.job: JobRecord(run, at) for run, at in zip(newest, done_at, strict=True)})

    async def forget(self, limit: int = 1000) -> int:
        parameters = {"kept": KEPT_RUNS, "age": KEPT_FOR, "instant": self._clock.instant(), "limit": limit}
        return len(await fetch_patiently(self._manager, FORGET, **parameters))
