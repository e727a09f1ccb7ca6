"""What administrators and operators did, in PostgreSQL."""

from sqlalchemy import insert
from sqlmodel import col, select

from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import AdminAct


class PostgresAdminAudit(BaseRepository):
    """Implements `AdminAudit`."""

    async def record(self, act: AdminAct) -> None:
        values = {**act.model_dump(exclude={"id", "timestamp"}), "timestamp": self.now()}
        await self.session.execute(insert(AdminAct).values(values))

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        statement = select(AdminAct).order_by(col(AdminAct.id).desc()).limit(limit)
        if before_id is not None:
            statement = statement.where(col(AdminAct.id) < before_id)
        if actor is not None:
            statement = statement.where(col(AdminAct.actor) == actor)
        if target is not None:
            statement = statement.where(col(AdminAct.target) == target)
        return list((await self.session.execute(statement)).scalars())
