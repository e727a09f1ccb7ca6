"""Personal data, erasures and guest merges in PostgreSQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Executable,
    Result,
    Row,
    and_,
    delete,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from shopassist.credits.models import CreditHold, Erasure, IdempotentAnswer, UserCredits
from shopassist.credits.postgres.statements import LOCK_SUBJECTS
from shopassist.db.database import BaseRepository, DatabaseManager
from shopassist.db.ports import Clock, UserHashFunction
from shopassist.errors import AccountErasedError
from shopassist.privacy.models import (
    ErasureListEntry,
    ErasurePolicy,
    ErasureRequest,
    GuestMerge,
    build_erasure,
    close_account,
    decide_is_guest,
    record_progress,
)
from shopassist.privacy.personal_data import DataOwner, PersonalDataPage, PersonalDataTable, get_personal_data_tables

SELECT_NOW = text("SELECT COALESCE(CAST(:instant AS timestamptz), now())")

# Triggers of append-only tables accept changes of a transaction with these settings. The lock prevents a deadlock with
# the compaction of the same ledger rows.
ALLOW_ERASURE = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       set_config('shopassist.erasing_user', CAST(:user_id AS text), true),
       pg_advisory_xact_lock(hashtextextended('shopassist.ledger_maintenance', 0))
""")

DELETE_EXPIRED_BALANCES = text("""
DELETE FROM erased_balances WHERE subject_hash = ANY(ARRAY(
    SELECT subject_hash FROM erased_balances
    WHERE forget_at <= CAST(:instant AS timestamptz) ORDER BY forget_at LIMIT :limit
)) RETURNING 1
""")

DELETE_OLD_ERASURES = text("""
DELETE FROM erasures WHERE id = ANY(ARRAY(
    SELECT id FROM erasures
    WHERE requested_at < CAST(:instant AS timestamptz) AND finished_at IS NOT NULL
    ORDER BY requested_at, id LIMIT :limit
)) RETURNING 1
""")


def get_owner_id(table: PersonalDataTable) -> ColumnElement[Any]:
    """Return the expression of the owner's id."""
    column, *json_key = table.owner_path
    owner: ColumnElement[Any] = table.sql_table.c[column]
    return owner[json_key[0]].as_string() if json_key else owner


def match_owner(table: PersonalDataTable, user_id: str, is_guest: bool) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the user."""
    condition = get_owner_id(table) == user_id
    return and_(condition, table.sql_table.c[table.guest_column] == is_guest) if table.guest_column else condition


async def erase_rows(
    session: AsyncSession, table: PersonalDataTable, user_id: str, is_guest: bool, pseudonym: str, limit: int
) -> int:
    """Erase up to `limit` rows by the rule of the table; return how many."""
    sql_table, key = table.sql_table, list(table.sql_table.primary_key)
    # The keys are read first, so that the second statement finds the rows by primary key however large the table is.
    found = select(*key).where(match_owner(table, user_id, is_guest)).order_by(*key).limit(limit)
    keys: Sequence[Row[Any]] = (await session.execute(found)).all()
    if keys:
        is_chosen = key[0].in_([row[0] for row in keys]) if len(key) == 1 else tuple_(*key).in_(map(tuple, keys))
        values = table.build_erased_values(pseudonym)
        change = delete(sql_table) if values is None else update(sql_table).values(values)
        await session.execute(change.where(is_chosen))
    return len(keys)


async def fetch_all(manager: DatabaseManager, statement: Executable) -> Sequence[Any]:
    """Return the rows of a statement in a transaction of its own."""
    result: Result[Any] = await manager.run(lambda session: session.execute(statement), repeatable=True)
    return result.all()


class PostgresPersonalDataReader:
    """Implements `PersonalDataReader`; each page is one transaction."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Read the database of `manager`."""
        self._manager = manager

    async def read_page(
        self, table: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: Any = None
    ) -> PersonalDataPage:
        key = list(table.sql_table.primary_key)
        columns = [table.sql_table.c[name] for name in table.exported_columns]
        statement = select(*columns, *(column.label(f"key_{column.name}") for column in key))
        statement = statement.where(match_owner(table, user_id, is_guest)).order_by(*key).limit(limit)
        if after is not None:
            is_after = key[0] > after if len(key) == 1 else tuple_(*key) > tuple_(*map(literal, after))
            statement = statement.where(is_after)
        rows = await fetch_all(self._manager, statement)
        keys = [row[-1] if len(key) == 1 else tuple(row[len(columns) :]) for row in rows]
        page = [dict(zip(table.exported_columns, row, strict=False)) for row in rows]
        return PersonalDataPage(page, keys[-1] if len(rows) == limit else None)

    async def list_owners(self, table: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        owner, columns = get_owner_id(table), table.sql_table.c
        is_guest = func.bool_and(columns[table.guest_column]) if table.guest_column else null()
        statement = select(owner, is_guest, func.min(columns[table.created_column or ""]))
        statement = statement.where(owner > after_user_id).group_by(owner).order_by(owner).limit(limit)
        return [DataOwner(*row) for row in await fetch_all(self._manager, statement)]


class PostgresErasureRepository:
    """Implements `ErasureRepository`."""

    def __init__(self, manager: DatabaseManager, policy: ErasurePolicy, clock: Clock) -> None:
        """`policy` sets the retention of balances and of the list of erasures."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        return await self._manager.run(lambda session: self._begin(session, request), repeatable=True)

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        return await self._manager.run(lambda session: self._advance(session, erasure_id, limit), repeatable=True)

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        statement = select(col(Erasure.id)).where(col(Erasure.finished_at).is_(None))
        statement = statement.order_by(col(Erasure.requested_at)).limit(limit)
        return [row.id for row in await fetch_all(self._manager, statement)]

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        order = (col(Erasure.requested_at), col(Erasure.id))
        statement = select(col(Erasure.id), col(Erasure.subject_hash), col(Erasure.requested_at))
        statement = statement.order_by(*order).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*order) > (after.erased_at, after.id))
        return [ErasureListEntry(*row) for row in await fetch_all(self._manager, statement)]

    async def delete_expired(self, limit: int = 1000) -> int:
        async def delete_rows(session: AsyncSession) -> int:
            now = await get_now(session, self._clock)
            deleted = 0
            for statement, instant in (
                (DELETE_EXPIRED_BALANCES, now),
                (DELETE_OLD_ERASURES, now - self._policy.list_lifetime),
            ):
                deleted += len((await session.execute(statement, {"instant": instant, "limit": limit})).all())
            return deleted

        return await self._manager.run(delete_rows, repeatable=True)

    async def _begin(self, session: AsyncSession, request: ErasureRequest) -> Erasure | None:
        await session.execute(LOCK_SUBJECTS, {"subjects": [request.subject_hash]})
        earlier = select(Erasure).where(col(Erasure.subject_hash) == request.subject_hash)
        earlier = earlier.order_by(col(Erasure.finished_at).desc().nulls_first()).limit(1)
        last = (await session.execute(earlier)).scalar_one_or_none()
        account = await session.get(UserCredits, request.user_id, with_for_update=True)
        pending = last if last and last.finished_at is None else None
        is_guest = decide_is_guest(request.is_guest, account or pending)
        tables = get_personal_data_tables(is_guest, account is not None)
        has_rows = or_(*(exists().where(match_owner(table, request.user_id, is_guest)) for table in tables))
        if pending or not (account or await session.scalar(select(has_rows))):
            return last
        erasure = build_erasure(request, is_guest, account is not None, await get_now(session, self._clock))
        if account is not None:
            await self._close(session, account, erasure)
        session.add(erasure)
        await session.flush()
        return erasure

    async def _close(self, session: AsyncSession, account: UserCredits, erasure: Erasure) -> None:
        """Release holds, keep the balance under the hash, and close the account under the pseudonym."""
        holds = delete(CreditHold).where(col(CreditHold.user_id) == account.user_id).returning(col(CreditHold.hold_id))
        erasure.counts = {"account": 1, "holds": len((await session.execute(holds)).all())}
        kept, closed, closing_entry = close_account(account, erasure, self._policy)
        await session.merge(kept)
        await session.delete(account)
        session.add_all([closed, closing_entry] if closing_entry else [closed])

    async def _advance(self, session: AsyncSession, erasure_id: UUID, limit: int) -> Erasure:
        erasure = await session.get_one(Erasure, erasure_id, with_for_update=True)
        if erasure.user_id is None or erasure.pseudonym is None:
            return erasure
        await session.execute(ALLOW_ERASURE, {"user_id": erasure.user_id})
        left, erased = limit, {}
        for table in get_personal_data_tables(erasure.is_guest, erasure.had_account):
            if left > 0:
                erased[table.name] = await erase_rows(
                    session, table, erasure.user_id, erasure.is_guest, erasure.pseudonym, left
                )
                left -= erased[table.name]
        record_progress(erasure, erased, await get_now(session, self._clock) if left > 0 else None)
        await session.flush()
        return erasure


async def get_now(session: AsyncSession, clock: Clock) -> datetime:
    """Return the instant of `clock`, or else the database's time."""
    now: datetime = (await session.execute(SELECT_NOW, {"instant": clock.instant()})).scalar_one()
    return now


class PostgresGuestMergeRepository(BaseRepository):
    """Implements `GuestMergeRepository`."""

    def __init__(self, session: AsyncSession, hash_user_id: UserHashFunction, clock: Clock | None = None) -> None:
        """`hash_user_id` hashes user ids."""
        super().__init__(session, clock)
        self._hash_user_id = hash_user_id

    async def lock(self, guest_id: str, user_id: str) -> None:
        hashes = [self._hash_user_id(guest_id), self._hash_user_id(user_id)]
        await self.session.execute(LOCK_SUBJECTS, {"subjects": hashes})
        erasing = select(col(Erasure.id)).where(
            col(Erasure.subject_hash).in_(hashes), col(Erasure.finished_at).is_(None)
        )
        if (await self.session.execute(erasing)).first() is not None:
            raise AccountErasedError

    async def find_merge(self, guest_id: str) -> GuestMerge | None:
        return await self.session.get(GuestMerge, guest_id)

    async def move_answers(self, guest_id: str, user_id: str) -> int:
        answer, taken = IdempotentAnswer, aliased(IdempotentAnswer)
        same_key = exists().where(col(taken.user_id) == user_id, col(taken.idempotency_key) == answer.idempotency_key)
        statement = update(answer).where(col(answer.user_id) == guest_id, ~same_key).values(user_id=user_id)
        return len((await self.session.execute(statement.returning(literal(1)))).all())

    async def insert_merge(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        now = await get_now(self.session, self.clock)
        merge = GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=now, moved=moved)
        self.session.add(merge)
        await self.session.flush()
        return merge
