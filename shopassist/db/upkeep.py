"""What scheduled work asks of storage for itself: a record of its runs, and tables that stay fit."""

from typing import Protocol

from shopassist.models.maintenance import Overview, RunReport, Work


class MaintenanceRuns(Protocol):
    """What jobs have done, whichever process they ran in."""

    async def record(self, report: RunReport) -> None:
        """Record a run; one that did nothing and ended as the job's last, by the same, is counted there."""

    async def overview(self) -> Overview:
        """How each job stands that ever ran."""

    async def forget(self, limit: int = 1000) -> int:
        """Remove up to `limit` runs, old ones and those beyond the newest of their job; how many.

        The newest of each outcome of a job stays.
        """


class Vacuum(Protocol):
    """Clears dead rows away, and has the planner look again."""

    async def vacuum(self) -> Work:
        """Vacuum and analyse the tables whose figures call for it; how many."""
