"""The two storages of the audit log, and entries of operators who run commands."""

import getpass
from typing import Any

import asyncpg
from sqlalchemy import insert
from sqlmodel import col, select

from shopassist.audit.models import AdminAct
from shopassist.db.database import BaseRepository
from shopassist.db.memory import MemoryRepository, copy_row


def build_conditions(entry: Any, before_id: int | None, actor: str | None, target: str | None) -> list[Any]:
    """Return the conditions of `AdminAudit.page` on an entry as booleans, or as SQL if `entry` is the class itself."""
    conditions = [] if before_id is None else [entry.id < before_id]
    if actor is not None:
        conditions.append(entry.actor == actor)
    if target is not None:
        conditions.append(entry.target == target)
    return conditions


class MemoryAdminAudit(MemoryRepository):
    """Implements `AdminAudit`."""

    async def record(self, entry: AdminAct) -> None:
        key = self.store.next_id(AdminAct)
        self.session.put(self.store.table(AdminAct), key, copy_row(entry, id=key, timestamp=self.store.now()))

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        entries = reversed(self.store.table(AdminAct).values())
        chosen = [entry for entry in entries if all(build_conditions(entry, before_id, actor, target))]
        return [copy_row(entry) for entry in chosen[:limit]]


class PostgresAdminAudit(BaseRepository):
    """Implements `AdminAudit`."""

    async def record(self, entry: AdminAct) -> None:
        values = {**entry.model_dump(exclude={"id", "timestamp"}), "timestamp": self.now()}
        await self.session.execute(insert(AdminAct).values(values))

    async def page(
        self, limit: int, before_id: int | None = None, actor: str | None = None, target: str | None = None
    ) -> list[AdminAct]:
        conditions = build_conditions(AdminAct, before_id, actor, target)
        statement = select(AdminAct).where(*conditions).order_by(col(AdminAct.id).desc()).limit(limit)
        return list((await self.session.execute(statement)).scalars())


SELECT_AUDIT_EXISTS = "SELECT to_regclass('public.admin_audit') IS NOT NULL"
INSERT_OPERATOR_ENTRY = "INSERT INTO admin_audit (actor, act, target) VALUES ($1, $2, $3)"


def get_operator_name() -> str:
    """Return the operating system's name of the user who runs the command."""
    try:
        return f"operator:{getpass.getuser()}"
    except (OSError, KeyError):  # a container may run as a number without a name
        return "operator"


async def insert_operator_entry(connection: asyncpg.Connection, action: str, target: str) -> None:
    """Record an action on the database itself, if its schema has an audit log. Raises asyncpg's errors."""
    if await connection.fetchval(SELECT_AUDIT_EXISTS):
        await connection.execute(INSERT_OPERATOR_ENTRY, get_operator_name(), action, target)
