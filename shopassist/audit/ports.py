"""Port of the audit log."""

from typing import Protocol

from shopassist.audit.models import AdminAct


class AdminAudit(Protocol):
    """What administrators and operators did. It only grows."""

    async def record(self, act: AdminAct) -> None: ...

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        """Newest first, by or about somebody when that is given; with `before_id` those older than that act."""


class AuditRepositories(Protocol):
    """Repositories of the administrators' audit within a unit of work."""

    @property
    def admin_audit(self) -> AdminAudit: ...
