"""All rows of a user in PostgreSQL: read and replaced as a whole."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, text
from sqlalchemy.dialects.postgresql import insert as insert_new
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col, select

from shopassist.audit.models import AdminAct
from shopassist.consent.models import ConsentEvent, UserConsent
from shopassist.credits.models import (
    CreditHold,
    CreditTransaction,
    ErasedBalance,
    Erasure,
    IdempotentAnswer,
    UserCredits,
)
from shopassist.db.database import DatabaseManager
from shopassist.db.statements import fetch
from shopassist.privacy.models import GuestMerge
from shopassist.rollout.backends import USER_TABLES, Erased, Rows, find_new_events

# One statement, so that all of it is of one instant.
READ_USER_ROWS = text("""
SELECT user_id AS owner, 'user_credits' AS kind, 0 AS place, to_jsonb(t) AS row
FROM user_credits t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT user_id, 'credit_holds', 0, to_jsonb(t)
FROM credit_holds t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT user_id, 'credit_transactions', id, to_jsonb(t)
FROM credit_transactions t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT user_id, 'user_consents', 0, to_jsonb(t)
FROM user_consents t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT user_id, 'consent_events', id, to_jsonb(t)
FROM consent_events t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT user_id, 'idempotent_answers', 0, to_jsonb(t)
FROM idempotent_answers t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT user_id, 'guest_merges', 0, to_jsonb(t)
FROM guest_merges t WHERE user_id = ANY(CAST(:users AS text[]))
UNION ALL SELECT guest_id, 'guest_merges', 0, to_jsonb(t)
FROM guest_merges t WHERE guest_id = ANY(CAST(:users AS text[])) AND guest_id IS DISTINCT FROM user_id
ORDER BY kind, place
""")

# People are moved side by side, but not while somebody's rows are folded or erased, who would wait in a circle.
ALLOW_MOVING = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       pg_advisory_xact_lock_shared(hashtextextended('shopassist.ledger_maintenance', 0))
""")

# Who is being erased, and whose rows are under a pseudonym, is nobody who could be moved.
READ_OWNERS = text("""
SELECT user_id FROM (
    SELECT user_id FROM user_credits
    UNION SELECT user_id FROM user_consents
    UNION SELECT user_id FROM consent_events
    UNION SELECT user_id FROM idempotent_answers
) AS owners
WHERE user_id > CAST(:after AS text) AND NOT starts_with(user_id, 'erased|')
  AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = owners.user_id AND e.finished_at IS NULL)
ORDER BY user_id LIMIT CAST(:limit AS integer)
""")

TABLES_BY_NAME: dict[str, type[SQLModel]] = {str(table.__tablename__): table for table in USER_TABLES}
REPLACED_TABLES: tuple[Any, ...] = (UserCredits, CreditHold, CreditTransaction, UserConsent, IdempotentAnswer)


class PostgresUserRows:
    """Implements `UserRows`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Reads and writes by `manager`. Each call raises domain errors in place of the driver's."""
        self._manager = manager

    async def read(self, user_ids: Sequence[str]) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for owner, kind, _, row in await fetch(self._manager, READ_USER_ROWS, repeatable=True, users=list(user_ids)):
            table = TABLES_BY_NAME[kind]
            found.setdefault(owner, {}).setdefault(table, []).append(table.model_validate(row))
        return found

    async def write(self, user_id: str, rows: Rows) -> None:
        async def once() -> None:
            async with self._manager.session() as session:
                await self._replace(session, user_id, rows)

        await self._manager.resilience.run(once, repeatable=True)

    async def owners(self, limit: int, after_user_id: str = "") -> list[str]:
        rows = await fetch(self._manager, READ_OWNERS, repeatable=True, after=after_user_id, limit=limit)
        return [row["user_id"] for row in rows]

    async def note_acts(self, acts: Sequence[AdminAct]) -> None:
        async def once() -> None:
            async with self._manager.session() as session:
                await session.execute(insert(AdminAct), [get_values(act) for act in acts])

        await self._manager.resilience.run(once)

    async def erased(self, subject_hash: str | None = None) -> Erased:
        async def once() -> Erased:
            async with self._manager.session() as session:
                erasures, balances = select(Erasure), select(ErasedBalance)
                if subject_hash is not None:
                    erasures = erasures.where(col(Erasure.subject_hash) == subject_hash)
                    balances = balances.where(col(ErasedBalance.subject_hash) == subject_hash)
                found = list((await session.execute(erasures)).scalars())
                return found, list((await session.execute(balances)).scalars())

        return await self._manager.resilience.run(once, repeatable=True)

    async def _replace(self, session: AsyncSession, user_id: str, rows: Rows) -> None:
        await session.execute(ALLOW_MOVING)
        for table in REPLACED_TABLES:
            await session.execute(delete(table).where(table.user_id == user_id))
            if new := [get_values(row) for row in rows.get(table, ())]:
                await session.execute(insert(table), new)
        await self._add_events(session, user_id, rows.get(ConsentEvent, []))
        for merge in rows.get(GuestMerge, ()):
            await session.execute(insert_new(GuestMerge).values(get_values(merge)).on_conflict_do_nothing())

    async def _add_events(self, session: AsyncSession, user_id: str, events: list[ConsentEvent]) -> None:
        there = await session.execute(select(ConsentEvent).where(col(ConsentEvent.user_id) == user_id))
        if new := find_new_events(there.scalars(), events):
            await session.execute(insert(ConsentEvent), [get_values(event) for event in new])


def get_values(row: SQLModel) -> dict[str, Any]:
    """A row's columns but for an id that the database gives."""
    return {name: getattr(row, name) for name in type(row).model_fields if name != "id"}
