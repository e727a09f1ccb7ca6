"""Tables and results of maintenance runs, and leases."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, Column, Identity, Index, text
from sqlmodel import Field, SQLModel

from shopassist.db.columns import Timestamp
from shopassist.db.row_batches import JobResult

DONE = "done"
RUNS_KEPT_PER_JOB = 200
"""Of each job, beside the newest of each outcome."""

RUN_RETENTION = timedelta(days=90)
NOTE_LENGTH = 500


class StartedBy(StrEnum):
    """Who had a job run."""

    SCHEDULER = "scheduler"
    OPERATOR = "operator"


class MaintenanceRun(SQLModel, table=True):
    """One run of a job, or as many as `repeats` of which each ended as the one before and did nothing.

    `began_at` is of the first of them, `finished_at` and `seconds` of the last.
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


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run that is over, to be recorded."""

    job: str
    outcome: str
    result: JobResult
    seconds: float
    started_by: StartedBy = StartedBy.SCHEDULER

    @property
    def is_done(self) -> bool:
        """Whether it ended well."""
        return self.outcome == DONE


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The newest run of a job, and when one last ended well."""

    last_run: MaintenanceRun
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class MaintenanceOverview:
    """How jobs stood at an instant, by name."""

    now: datetime
    jobs: Mapping[str, JobRecord]


class Lease(SQLModel, table=True):
    """`holder` has the work `name` to itself until `expires_at`."""

    __tablename__ = "leases"

    name: str = Field(primary_key=True, max_length=64)
    holder: str = Field(max_length=64)
    expires_at: datetime = Field(sa_type=Timestamp)
