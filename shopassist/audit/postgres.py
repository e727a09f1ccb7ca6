"""Audit log in PostgreSQL, and entries of operators who run commands."""

import getpass

import asyncpg
from sqlalchemy import insert
from sqlmodel import col, select

from shopassist.audit.models import AdminAct
from shopassist.db.database import BaseRepository


class PostgresAdminAudit(BaseRepository):
    """Implements `AdminAudit`."""

    async def record(self, entry: AdminAct) -> None:
        values = {**entry.model_dump(exclude={"id", "timestamp"}), "timestamp": self.now()}
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


SELECT_AUDIT_EXISTS = "SELECT to_regclass('public.admin_audit') IS NOT NULL"
INSERT_OPERATOR_ENTRY = "INSERT INTO admin_audit (actor, act, target) VALUES ($1, $2, $3)"


def get_operator_name() -> str:
    """Return the operating system's name of the user who runs the command."""
    try:
        return f"operator:{getpass.getuser()}"
    except OSError:
        return "operator"


async def insert_operator_entry(connection: asyncpg.Connection, action: str, target: str) -> None:
    """Record an action on the database itself, if its schema has an audit log. Raises asyncpg's errors."""
    if await connection.fetchval(SELECT_AUDIT_EXISTS):
        await connection.execute(INSERT_OPERATOR_ENTRY, get_operator_name(), action, target)
