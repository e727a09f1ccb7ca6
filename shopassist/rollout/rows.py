"""The rows of users in each storage, read and replaced as a whole."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import delete, insert, inspect, text
from sqlalchemy.dialects.postgresql import insert as insert_new
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col, select

from shopassist.consent.models import ConsentEvent, UserConsent
from shopassist.credits.models import CreditHold, CreditTransaction, IdempotentAnswer, UserCredits
from shopassist.db.database import DatabaseManager
from shopassist.db.memory import MemoryStore, copy_row
from shopassist.db.statements import fetch
from shopassist.privacy.models import GuestMerge

Rows = dict[type[SQLModel], list[Any]]
"""Rows by table; histories are in the order of their ids."""

OWNED_TABLES: tuple[type[Any], ...] = (
    UserCredits,
    CreditHold,
    CreditTransaction,
    UserConsent,
    ConsentEvent,
    IdempotentAnswer,
)
"""The tables with a `user_id` whose rows migrate with that user."""

USER_TABLES: tuple[type[Any], ...] = (*OWNED_TABLES, GuestMerge)
"""All tables with rows that migrate. A guest merge belongs to both the guest and the user."""

TABLES_BY_NAME: dict[str, type[Any]] = {table.__tablename__: table for table in USER_TABLES}

# One statement, so that all rows are from one snapshot.
READ_USER_ROWS = text("""
SELECT user_id AS owner, 'user_credits' AS kind, 0 AS place, to_jsonb(t) AS row
FROM user_credits t WHERE user_id = ANY(:users)
UNION ALL SELECT user_id, 'credit_holds', 0, to_jsonb(t) FROM credit_holds t WHERE user_id = ANY(:users)
UNION ALL SELECT user_id, 'credit_transactions', id, to_jsonb(t) FROM credit_transactions t WHERE user_id = ANY(:users)
UNION ALL SELECT user_id, 'user_consents', 0, to_jsonb(t) FROM user_consents t WHERE user_id = ANY(:users)
UNION ALL SELECT user_id, 'consent_events', id, to_jsonb(t) FROM consent_events t WHERE user_id = ANY(:users)
UNION ALL SELECT user_id, 'idempotent_answers', 0, to_jsonb(t) FROM idempotent_answers t WHERE user_id = ANY(:users)
UNION ALL SELECT user_id, 'guest_merges', 0, to_jsonb(t) FROM guest_merges t WHERE user_id = ANY(:users)
UNION ALL SELECT guest_id, 'guest_merges', 0, to_jsonb(t) FROM guest_merges t WHERE guest_id = ANY(:users)
ORDER BY kind, place
""")

# Users under erasure and pseudonymised rows are not migrated.
READ_OWNERS = text("""
SELECT user_id FROM (
    SELECT user_id FROM user_credits
    UNION SELECT user_id FROM user_consents
    UNION SELECT user_id FROM consent_events
    UNION SELECT user_id FROM idempotent_answers
) AS owners
WHERE user_id > :after AND NOT starts_with(user_id, 'erased|')
  AND NOT EXISTS (SELECT FROM erasures e WHERE e.user_id = owners.user_id AND e.finished_at IS NULL)
ORDER BY user_id LIMIT :limit
""")

# Migrations may run concurrently, but not while rows are compacted or erased: the two would deadlock.
ALLOW_MIGRATION = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       pg_advisory_xact_lock_shared(hashtextextended('shopassist.ledger_maintenance', 0))
""")


class MemoryUserRows:
    """Reads and replaces rows in a store. Nothing is awaited under its lock: each call is atomic."""

    def __init__(self, store: MemoryStore) -> None:
        """Use the rows of `store`."""
        self.store = store

    async def read(self, user_ids: Sequence[str]) -> dict[str, Rows]:
        """Return copies of the rows of those users who have any."""
        async with self.store.lock:
            return {user_id: rows for user_id in user_ids if (rows := self._copy_rows(user_id))}

    async def write(self, user_id: str, rows: Rows) -> None:
        """Replace all rows of a user; histories get new ids, merges are only added.

        The rows themselves are stored, not copies: the caller must not use them any more.
        """
        async with self.store.lock:
            for table in OWNED_TABLES:
                self.store.user_table(table).remove_user(user_id)
            for table, of_table in rows.items():
                for row in of_table:
                    if hasattr(row, "id"):
                        row.id = self.store.next_id(table)
                self._put(of_table)

    async def put(self, rows: Iterable[SQLModel]) -> None:
        """Insert or replace rows of any table."""
        async with self.store.lock:
            self._put(rows)

    async def list_owners(self, limit: int | None = None, after_user_id: str = "") -> list[str]:
        """Return the users who have rows, by user id, after `after_user_id`."""
        async with self.store.lock:
            owners = set[str]().union(*(self.store.user_table(table).list_users() for table in OWNED_TABLES))
        return sorted(user_id for user_id in owners if user_id > after_user_id)[:limit]

    def has_rows(self, user_id: str) -> bool:
        """Return whether a user has rows."""
        return any(self.store.user_rows(table, user_id) for table in OWNED_TABLES)

    def has_account(self, account: UserCredits) -> bool:
        """Return whether there is an equal account."""
        stored = self.store.table(UserCredits).get(account.user_id)
        return stored is not None and get_values(stored) == get_values(account)

    def list_admins_mentioning(self, user_id: str) -> list[str]:
        """Return the administrators with stored idempotent responses about a user."""
        answers = self.store.table(IdempotentAnswer).values()
        return sorted({row.user_id for row in answers if row.response.get("user_id") == user_id})

    async def anonymise_merges(self, user_id: str) -> None:
        """Remove an erased user from the guest merges, and the merge of an erased guest."""
        async with self.store.lock:
            for merge in self._find_merges(user_id):
                del self.store.table(GuestMerge)[merge.guest_id]
                if merge.guest_id != user_id:
                    self._put([copy_row(merge, user_id=None)])

    def _put(self, rows: Iterable[SQLModel]) -> None:
        for row in rows:
            key = inspect(type(row)).primary_key_from_instance(row)
            self.store.table(type(row))[key[0] if len(key) == 1 else tuple(key)] = row

    def _copy_rows(self, user_id: str) -> Rows:
        rows: Rows = {
            table: [copy_row(row) for _, row in sorted(self.store.user_rows(table, user_id).items())]
            for table in OWNED_TABLES
        }
        rows[GuestMerge] = list(map(copy_row, self._find_merges(user_id)))
        return {table: of_table for table, of_table in rows.items() if of_table}

    def _find_merges(self, user_id: str) -> list[GuestMerge]:
        return [row for row in self.store.table(GuestMerge).values() if user_id in {row.user_id, row.guest_id}]


class PostgresUserRows:
    """Reads and replaces rows in PostgreSQL. Each call raises domain errors in place of the driver's."""

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
        await self._manager.run(lambda session: replace_rows(session, user_id, rows), repeatable=True)

    async def list_owners(self, limit: int, after_user_id: str = "") -> list[str]:
        """Return users who have rows, by user id, after `after_user_id`."""
        rows = await fetch(self._manager, READ_OWNERS, repeatable=True, after=after_user_id, limit=limit)
        return [row["user_id"] for row in rows]

    async def insert(self, table: type[SQLModel], rows: Iterable[SQLModel]) -> None:
        """Insert rows under new ids."""
        values = list(map(get_values, rows))
        await self._manager.run(lambda session: session.execute(insert(table), values))

    async def select(self, table: type[Any], **wanted: object) -> list[Any]:
        """Return the rows with those values."""

        async def read(session: AsyncSession) -> list[Any]:
            return list(await session.scalars(select(table).filter_by(**wanted)))

        return await self._manager.run(read, repeatable=True)


async def replace_rows(session: AsyncSession, user_id: str, rows: Rows) -> None:
    """Replace the rows of a user except consent events and merges, which are only added."""
    await session.execute(ALLOW_MIGRATION)
    for table in OWNED_TABLES:
        new = rows.get(table, [])
        if table is ConsentEvent:
            stored = await session.execute(select(ConsentEvent).where(col(ConsentEvent.user_id) == user_id))
            new = find_new_events(stored.scalars().all(), new)
        else:
            await session.execute(delete(table).where(table.user_id == user_id))
        if new:
            await session.execute(insert(table), list(map(get_values, new)))
    for merge in rows.get(GuestMerge, ()):
        await session.execute(insert_new(GuestMerge).values(get_values(merge)).on_conflict_do_nothing())


def find_new_events(stored: Iterable[ConsentEvent], events: Iterable[ConsentEvent]) -> list[ConsentEvent]:
    """Return those of `events` that are not stored, whatever their ids; equal events are counted."""

    def identify(event: ConsentEvent) -> tuple[Any, ...]:
        return event.is_guest, event.purpose, event.granted, event.timestamp

    left = Counter(map(identify, stored))
    new = []
    for event in events:
        if left[identify(event)] > 0:
            left[identify(event)] -= 1
        else:
            new.append(event)
    return new


def get_values(row: SQLModel) -> dict[str, Any]:
    """Return the columns of a row except an id that the database assigns."""
    return {name: getattr(row, name) for name in type(row).model_fields if name != "id"}
