"""What administrators and operators did, in memory."""

from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.models import AdminAct


class MemoryAdminAudit(BaseRepository):
    """Implements `AdminAudit`."""

    async def record(self, act: AdminAct) -> None:
        key = self.store.next_id("admin_audit")
        self.session.put(self.store.admin_acts, key, copied(act, id=key, timestamp=self.store.now()))

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        wanted = [
            copied(act)
            for key, act in reversed(self.store.admin_acts.items())
            if (before_id is None or key < before_id)
            and (actor is None or act.actor == actor)
            and (target is None or act.target == target)
        ]
        return wanted[:limit]
