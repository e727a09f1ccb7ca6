"""Audit log in memory."""

from shopassist.audit.models import AdminAct
from shopassist.db.memory import MemoryRepository, copy_row


class MemoryAdminAudit(MemoryRepository):
    """Implements `AdminAudit`."""

    async def record(self, act: AdminAct) -> None:
        key = self.store.next_id(AdminAct)
        self.session.put(self.store.table(AdminAct), key, copy_row(act, id=key, timestamp=self.store.now()))

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        wanted = [
            copy_row(act)
            for key, act in reversed(self.store.table(AdminAct).items())
            if (before_id is None or key < before_id)
            and (actor is None or act.actor == actor)
            and (target is None or act.target == target)
        ]
        return wanted[:limit]
