"""Reads the audit log and records each read."""

from shopassist.audit.models import AdminAct
from shopassist.audit.ports import AuditRepositories
from shopassist.db.ports import UnitOfWork


class AdminAuditService:
    """Shows what administrators and operators did; whoever looks is recorded too."""

    def __init__(self, unit_of_work: UnitOfWork[AuditRepositories]) -> None:
        """Acts are recorded in the unit of work that does them."""
        self._unit_of_work = unit_of_work

    async def read(
        self,
        looking: AdminAct,
        limit: int,
        before_id: int | None = None,
        actor: str | None = None,
        target: str | None = None,
    ) -> list[AdminAct]:
        """Acts, newest first, by or about somebody where that is given; with `before_id` those older than that one.

        `looking` is the reader's own act, which is among those that are read later.
        """

        async def look(work: AuditRepositories) -> list[AdminAct]:
            acts = await work.admin_audit.page(limit, before_id, actor, target)
            await work.admin_audit.record(looking)
            return acts

        return await self._unit_of_work.run(look, repeatable=True)
