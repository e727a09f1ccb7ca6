"""The rows of users in PostgreSQL, read and replaced as a whole."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

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
from shopassist.rollout.models import USER_TABLES, Erasures, Rows

Result = TypeVar("Result")

# One statement, so that all rows are from one snapshot.
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

# Migrations may run concurrently, but not while rows are compacted or erased: the two would deadlock.
ALLOW_MIGRATION = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       pg_advisory_xact_lock_shared(hashtextextended('shopassist.ledger_maintenance', 0))
""")

# Users under erasure and pseudonymised rows are not migrated.
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
    """Reads and replaces the rows of users. Each call raises domain errors in place of the driver's."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Use the sessions of `manager`."""
        self._manager = manager

    async def read(self, user_ids: Sequence[str]) -> dict[str, Rows]:
        """Return the rows of those users who have any, all from one snapshot."""
        found: dict[str, Rows] = {}
        for owner, kind, _, row in await fetch(self._manager, READ_USER_ROWS, repeatable=True, users=list(user_ids)):
            table = TABLES_BY_NAME[kind]
            found.setdefault(owner, {}).setdefault(table, []).append(table.model_validate(row))
        return found

    async def write(self, user_id: str, rows: Rows) -> None:
        """Replace all rows of a user; histories get new ids. Doing it again changes nothing.

        Consent events and merges are only added, never removed: they prove what the user agreed to.
        """
        await self._run(lambda session: replace_rows(session, user_id, rows), repeatable=True)

    async def list_owners(self, limit: int, after_user_id: str = "") -> list[str]:
        """Return users who have rows, by user id, after `after_user_id`."""
        rows = await fetch(self._manager, READ_OWNERS, repeatable=True, after=after_user_id, limit=limit)
        return [row["user_id"] for row in rows]

    async def insert_audit_entries(self, entries: Sequence[AdminAct]) -> None:
        """Insert audit entries with the times that they have."""
        await self._run(lambda session: session.execute(insert(AdminAct), [get_values(entry) for entry in entries]))

    async def read_erasures(self, subject_hash: str | None = None) -> Erasures:
        """Return all erasures and erased balances, or those of one user hash."""
        erasures, balances = select(Erasure), select(ErasedBalance)
        if subject_hash is not None:
            erasures = erasures.where(col(Erasure.subject_hash) == subject_hash)
            balances = balances.where(col(ErasedBalance.subject_hash) == subject_hash)

        async def read(session: AsyncSession) -> Erasures:
            found = list((await session.execute(erasures)).scalars())
            return found, list((await session.execute(balances)).scalars())

        return await self._run(read, repeatable=True)

    async def _run(self, work: Callable[[AsyncSession], Awaitable[Result]], repeatable: bool = False) -> Result:
        """Do `work` in one transaction."""

        async def run_once() -> Result:
            async with self._manager.session() as session:
                return await work(session)

        return await self._manager.resilience.run(run_once, repeatable)


async def replace_rows(session: AsyncSession, user_id: str, rows: Rows) -> None:
    """Replace the rows of a user except consent events and merges, which are only added."""
    await session.execute(ALLOW_MIGRATION)
    for table in REPLACED_TABLES:
        await session.execute(delete(table).where(table.user_id == user_id))
        if new := [get_values(row) for row in rows.get(table, ())]:
            await session.execute(insert(table), new)
    stored = await session.execute(select(ConsentEvent).where(col(ConsentEvent.user_id) == user_id))
    if events := find_new_events(stored.scalars(), rows.get(ConsentEvent, ())):
        await session.execute(insert(ConsentEvent), [get_values(event) for event in events])
    for merge in rows.get(GuestMerge, ()):
        await session.execute(insert_new(GuestMerge).values(get_values(merge)).on_conflict_do_nothing())


def find_new_events(stored: Iterable[ConsentEvent], events: Iterable[ConsentEvent]) -> list[ConsentEvent]:
    """Return those of `events` that are not stored, whatever their ids; equal events are counted."""

    def get_identity(event: ConsentEvent) -> tuple[Any, ...]:
        return event.is_guest, event.purpose, event.granted, event.timestamp

    left = Counter(map(get_identity, stored))
    new = []
    for event in events:
        identity = get_identity(event)
        if left[identity]:
            left[identity] -= 1
        else:
            new.append(event)
    return new


def get_values(row: SQLModel) -> dict[str, Any]:
    """Return the columns of a row except an id that the database assigns."""
    return {name: getattr(row, name) for name in type(row).model_fields if name != "id"}
