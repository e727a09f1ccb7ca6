"""Ports of leases, records of runs, and vacuum."""

from datetime import timedelta
from typing import Protocol

from shopassist.db.row_batches import JobResult
from shopassist.maintenance.models import MaintenanceOverview, RunReport


class Leases(Protocol):
    """At most one holder of a name among all processes, by the database's clock."""

    async def acquire(self, name: str, holder: str, lifetime: timedelta) -> bool:
        """Take or prolong the lease; False while somebody else holds it."""

    async def release(self, name: str, holder: str) -> None: ...

    async def holder(self, name: str) -> str | None:
        """Who holds it now."""


class MaintenanceRuns(Protocol):
    """What jobs have done, whichever process they ran in."""

    async def record(self, report: RunReport) -> None:
        """Record a run; one that did nothing and ended as the job's last, by the same, is counted there."""

    async def overview(self) -> MaintenanceOverview:
        """How each job stands that ever ran."""

    async def delete_old(self, limit: int = 1000) -> int:
        """Remove up to `limit` runs, old ones and those beyond the newest of their job; how many.

        The newest of each outcome of a job stays.
        """


class Vacuum(Protocol):
    """Clears dead rows away, and has the planner look again."""

    async def vacuum(self) -> JobResult:
        """Vacuum and analyse the tables whose figures call for it; how many."""
