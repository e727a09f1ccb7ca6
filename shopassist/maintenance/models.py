"""Tables, results and ports of scheduled jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, text
from sqlmodel import Field, SQLModel

from shopassist.db.columns import Timestamp
from shopassist.db.ports import JobResult

DONE = "done"
RUNS_KEPT_PER_JOB = 200
"""Runs kept of each job, besides the newest of each outcome."""

RUN_RETENTION = timedelta(days=90)
NOTE_LENGTH = 500


class StartedBy(StrEnum):
    """What started a run."""

    SCHEDULER = "scheduler"
    OPERATOR = "operator"


class MaintenanceRun(SQLModel, table=True):
    """One run of a job, or `repeats` consecutive runs with the same outcome that processed no rows.

    `began_at` is the start of the first of them; `finished_at` and `seconds` are of the last. `did` counts rows.
    """

    __tablename__ = "maintenance_runs"
    __table_args__ = (
        CheckConstraint("repeats > 0", name="ck_maintenance_runs_repeats"),
        Index("ix_maintenance_runs_job_id", "job", "id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    job: str = Field(max_length=64)
    began_at: datetime = Field(sa_type=Timestamp)
    finished_at: datetime = Field(sa_type=Timestamp)
    outcome: str = Field(max_length=64)
    did: int = Field(sa_type=BigInteger)
    seconds: float
    started_by: str = Field(max_length=16)
    repeats: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    note: str | None = Field(default=None, max_length=NOTE_LENGTH)


class Lease(SQLModel, table=True):
    """A lock with an owner: `holder` alone does the work `name` until `expires_at`."""

    __tablename__ = "leases"

    name: str = Field(primary_key=True, max_length=64)
    holder: str = Field(max_length=64)
    expires_at: datetime = Field(sa_type=Timestamp)


@dataclass(frozen=True, slots=True)
class RunReport:
    """A finished run. `outcome` is `DONE` or the code of the error that ended it."""

    job: str
    outcome: str
    result: JobResult
    seconds: float
    started_by: StartedBy = StartedBy.SCHEDULER


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The last run of a job, and when a run of it last succeeded."""

    last_run: MaintenanceRun
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class MaintenanceOverview:
    """Records of all jobs, by job name, read at the instant `now`."""

    now: datetime
    jobs: Mapping[str, JobRecord]


class Leases(Protocol):
    """Port of leases: at most one process holds a name at a time, by the database's clock."""

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        """Acquire or extend the lease. Return False while another holder has it."""

    async def release(self, name: str, holder: str) -> None: ...

    async def holder(self, name: str) -> str | None:
        """Return the current holder."""


class MaintenanceRuns(Protocol):
    """Port of run records, shared by all processes."""

    async def record(self, report: RunReport) -> None:
        """Record a run. If it repeats the job's last run and processed no rows, only count it there."""

    async def overview(self) -> MaintenanceOverview:
        """Return the record of each job that ever ran."""

    async def delete_old(self, limit: int = 1000) -> int:
        """Delete up to `limit` runs past their retention; return how many.

        The newest run of each outcome of a job is kept.
        """
