"""Audit log in memory."""

from shopassist.audit.models import AdminAct
from shopassist.db.memory import MemoryRepository, copy_row


class MemoryAdminAudit(MemoryRepository):
    """Implements `AdminAudit`."""

    async def record(self, entry: AdminAct) -> None:
        key = self.store.next_id(AdminAct)
        self.session.put(self.store.table(AdminAct), key, copy_row(entry, id=key, timestamp=self.store.now()))

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        entries = [
            copy_row(entry)
            for key, entry in reversed(self.store.table(AdminAct).items())
            if (before_id is None or key < before_id)
            and (actor is None or entry.actor == actor)
            and (target is None or entry.target == target)
        ]
        return entries[:limit]
