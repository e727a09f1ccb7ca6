"""Personal data, erasures and guest merges in PostgreSQL."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Row,
    Table,
    delete,
    exists,
    func,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from shopassist.credits.models import CreditHold, ErasedBalance, Erasure, UserCredits
from shopassist.credits.postgres import account_sql
from shopassist.credits.postgres.account_sql import LOCK_SUBJECTS
from shopassist.db.base_repository import BaseRepository
from shopassist.db.database import DatabaseManager
from shopassist.db.ports import Clock, UserHashFunction
from shopassist.errors import AccountErasedError
from shopassist.privacy.models import (
    ErasureListEntry,
    ErasurePolicy,
    ErasureRequest,
    GuestMerge,
    build_closed_account,
    build_closing_entry,
    build_erased_balance,
    build_erasure,
    is_guest_erasure,
)
from shopassist.privacy.personal_data import OnErasure, PersonalDataTable, get_personal_data_tables
from shopassist.privacy.ports import DataOwner, PersonalDataPage, PrimaryKey

Result = TypeVar("Result")

SELECT_NOW = text("SELECT COALESCE(CAST(:instant AS timestamptz), now())")

# The triggers of tables that only grow let a transaction pass that says what it is about. A fold of the same rows
# would wait in a circle, so one at a time.
ALLOW_ERASURE = text("""
SELECT set_config('shopassist.ledger_maintenance', 'on', true),
       set_config('shopassist.erasing_user', CAST(:user_id AS text), true),
       pg_advisory_xact_lock(hashtextextended('shopassist.ledger_maintenance', 0))
""")

DELETE_EXPIRED_BALANCES = text("""
DELETE FROM erased_balances WHERE subject_hash = ANY(ARRAY(
    SELECT subject_hash FROM erased_balances
    WHERE forget_at <= COALESCE(CAST(:instant AS timestamptz), now()) ORDER BY forget_at LIMIT :limit
))
""")

DELETE_OLD_ERASURES = text("""
DELETE FROM erasures WHERE id = ANY(ARRAY(
    SELECT id FROM erasures
    WHERE requested_at < COALESCE(CAST(:instant AS timestamptz), now()) - CAST(:lifetime AS interval)
      AND finished_at IS NOT NULL
    ORDER BY requested_at, id LIMIT :limit
))
""")


def get_table(holding: PersonalDataTable) -> Table:
    """The table."""
    table: Table = holding.model.__table__  # type: ignore[attr-defined]
    return table


def get_owner_column(holding: PersonalDataTable, table: Any) -> ColumnElement[Any]:
    """Whose a row is."""
    column, *inside = holding.owner_path
    owner: ColumnElement[Any] = table.c[column]
    return owner[inside[0]].as_string() if inside else owner


def build_owner_conditions(holding: PersonalDataTable, user_id: str, is_guest: bool) -> list[ColumnElement[bool]]:
    """The condition that a row is of that user."""
    table = get_table(holding)
    conditions = [get_owner_column(holding, table) == user_id]
    return [*conditions, table.c[holding.guest_column] == is_guest] if holding.guest_column else conditions


def get_key_columns(holding: PersonalDataTable) -> list[ColumnElement[Any]]:
    """The primary key."""
    return [get_table(holding).c[name] for name in holding.key_columns]


async def has_rows(session: AsyncSession, holding: PersonalDataTable, user_id: str, is_guest: bool) -> bool:
    """Whether there is anything."""
    statement = (
        select(literal(1))
        .select_from(get_table(holding))
        .where(*build_owner_conditions(holding, user_id, is_guest))
        .limit(1)
    )
    return (await session.execute(statement)).first() is not None


async def erase_rows(
    session: AsyncSession, holding: PersonalDataTable, user_id: str, is_guest: bool, pseudonym: str, limit: int
) -> int:
    """Erase up to `limit` rows by the holding's own rule; how many."""
    table, key = get_table(holding), get_key_columns(holding)
    # An array, so that the rows are found once and then by their place, however large the table is.
    found = select(*key).where(*build_owner_conditions(holding, user_id, is_guest)).order_by(*key).limit(limit)
    rows: Sequence[Row[Any]] = (await session.execute(found)).all()
    if not rows:
        return 0
    chosen = key[0].in_([row[0] for row in rows]) if len(key) == 1 else tuple_(*key).in_([tuple(row) for row in rows])
    if holding.on_erasure in {OnErasure.DELETE, OnErasure.WITH_ACCOUNT}:
        await session.execute(delete(table).where(chosen))
        return len(rows)
    owner = None if holding.on_erasure is OnErasure.ANONYMISE else pseudonym
    values = {holding.owner_path[0]: owner, **dict.fromkeys(holding.cleared_columns)}
    await session.execute(update(table).where(chosen).values(values))
    return len(rows)


async def move_rows(session: AsyncSession, holding: PersonalDataTable, guest_id: str, user_id: str) -> int:
    """Make a guest's rows the user's, but those whose key the user has already; how many."""
    table = get_table(holding)
    theirs = table.alias()
    rest = [theirs.c[name] == table.c[name] for name in holding.key_columns if name != holding.owner_path[0]]
    conditions = build_owner_conditions(holding, guest_id, is_guest=True)
    if holding.owner_path[0] in holding.key_columns:
        conditions.append(~exists().where(get_owner_column(holding, theirs) == user_id, *rest))
    values: dict[str, Any] = {
        holding.owner_path[0]: user_id,
        **({holding.guest_column: False} if holding.guest_column else {}),
    }
    statement = update(table).where(*conditions).values(values).returning(literal(1))
    return len((await session.execute(statement)).all())


class PostgresPersonalDataReader:
    """Implements `PersonalDataReader`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Each page is a transaction of its own."""
        self._manager = manager

    async def read_page(
        self, holding: PersonalDataTable, user_id: str, is_guest: bool, limit: int, after: PrimaryKey | None = None
    ) -> PersonalDataPage:
        table, key = get_table(holding), get_key_columns(holding)
        columns = [table.c[name] for name in holding.exported_columns]
        statement = select(*columns, *(column.label(f"key_{column.name}") for column in key))
        statement = statement.where(*build_owner_conditions(holding, user_id, is_guest)).order_by(*key).limit(limit)
        if after is not None:
            behind = key[0] > after[0] if len(key) == 1 else tuple_(*key) > tuple_(*map(literal, after))
            statement = statement.where(behind)

        async def once() -> Sequence[Row[Any]]:
            async with self._manager.session() as session:
                return (await session.execute(statement)).all()

        rows = await self._manager.resilience.run(once, repeatable=True)
        last = tuple(rows[-1][len(columns) :]) if len(rows) == limit else None
        return PersonalDataPage([dict(zip(holding.exported_columns, row, strict=False)) for row in rows], last)

    async def list_owners(self, holding: PersonalDataTable, limit: int, after_user_id: str = "") -> list[DataOwner]:
        table = get_table(holding)
        owner = get_owner_column(holding, table)
        kinds: list[ColumnElement[Any]] = [func.bool_and(table.c[holding.guest_column])] if holding.guest_column else []
        statement: Any = select(owner, func.min(table.c[holding.created_column or ""]), *kinds).where(
            owner > after_user_id
        )
        statement = statement.group_by(owner).order_by(owner).limit(limit)

        async def once() -> Sequence[Row[Any]]:
            async with self._manager.session() as session:
                return (await session.execute(statement)).all()

        rows: Sequence[Any] = await self._manager.resilience.run(once, repeatable=True)
        return [DataOwner(row[0], row[2] if kinds else None, row[1]) for row in rows]


class PostgresErasureRepository:
    """Implements `ErasureRepository`."""

    def __init__(self, manager: DatabaseManager, policy: ErasurePolicy, clock: Clock) -> None:
        """`policy` says how long what is needed of the erased stays."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        return await self._in_one(lambda session: self._begin(session, request))

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        return await self._in_one(lambda session: self._advance(session, erasure_id, limit))

    async def list_unfinished(self, limit: int = 100) -> list[UUID]:
        statement = select(col(Erasure.id)).where(col(Erasure.finished_at).is_(None))
        statement = statement.order_by(col(Erasure.requested_at)).limit(limit)

        async def find(session: AsyncSession) -> list[UUID]:
            return list((await session.execute(statement)).scalars())

        return await self._in_one(find)

    async def list_erasures(self, limit: int = 1000, after: ErasureListEntry | None = None) -> list[ErasureListEntry]:
        order = (col(Erasure.requested_at), col(Erasure.id))
        statement = select(Erasure).order_by(*order).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*order) > (after.erased_at, after.id))

        async def find(session: AsyncSession) -> list[ErasureListEntry]:
            rows = (await session.execute(statement)).scalars()
            return [ErasureListEntry(row.id, row.subject_hash, row.requested_at) for row in rows]

        return await self._in_one(find)

    async def delete_expired(self, limit: int = 1000) -> int:
        async def remove(session: AsyncSession) -> int:
            removed = 0
            for statement in (DELETE_EXPIRED_BALANCES, DELETE_OLD_ERASURES):
                parameters = {"limit": limit, "instant": self._clock.instant(), "lifetime": self._policy.list_lifetime}
                used = {name: parameters[name] for name in statement.compile().params}
                result = await session.execute(statement, used)
                removed += result.rowcount if isinstance(result, CursorResult) else 0
            return removed

        return await self._in_one(remove)

    async def _begin(self, session: AsyncSession, request: ErasureRequest) -> Erasure | None:
        await session.execute(account_sql.LOCK_SUBJECTS, {"subjects": [request.subject_hash]})
        earlier = select(Erasure).where(col(Erasure.subject_hash) == request.subject_hash)
        earlier = earlier.order_by(col(Erasure.finished_at).desc().nulls_first()).limit(1)
        last = (await session.execute(earlier)).scalar_one_or_none()
        account = await session.get(UserCredits, request.user_id, with_for_update=True)
        is_guest = is_guest_erasure(request, account, last)
        if last is not None and last.finished_at is None:
            return last
        holdings = get_personal_data_tables(is_guest, account is not None)
        if account is None and not [one for one in holdings if await has_rows(session, one, request.user_id, is_guest)]:
            return last
        erasure = build_erasure(request, is_guest, account is not None, await self._now(session))
        if account is not None:
            await self._close(session, account, erasure)
        session.add(erasure)
        await session.flush()
        return erasure

    async def _close(self, session: AsyncSession, account: UserCredits, erasure: Erasure) -> None:
        """Give holds back, keep the balance under the hash, and let a closed account stand under the pseudonym."""
        holds = delete(CreditHold).where(col(CreditHold.user_id) == account.user_id).returning(col(CreditHold.hold_id))
        erasure.counts = {"account": 1, "holds": len((await session.execute(holds)).all())}
        balance = build_erased_balance(account, erasure, self._policy).model_dump()
        keep = insert(ErasedBalance).values(balance)
        await session.execute(keep.on_conflict_do_update(index_elements=["subject_hash"], set_=balance))
        await session.delete(account)
        session.add(build_closed_account(account, erasure))
        last_row = build_closing_entry(account, erasure)
        if last_row is not None:
            session.add(last_row)

    async def _advance(self, session: AsyncSession, erasure_id: UUID, limit: int) -> Erasure:
        erasure = await session.get_one(Erasure, erasure_id, with_for_update=True)
        if erasure.user_id is None or erasure.pseudonym is None:
            return erasure
        await session.execute(ALLOW_ERASURE, {"user_id": erasure.user_id})
        left, counts = limit, dict(erasure.counts)
        for one in get_personal_data_tables(erasure.is_guest, erasure.had_account):
            if left > 0:
                erased = await erase_rows(session, one, erasure.user_id, erasure.is_guest, erasure.pseudonym, left)
                left -= erased
                if erased:
                    counts[one.name] = counts.get(one.name, 0) + erased
        erasure.counts = counts
        if left > 0:
            erasure.finished_at = await self._now(session)
            erasure.user_id = erasure.pseudonym = None
        await session.flush()
        return erasure

    async def _now(self, session: AsyncSession) -> datetime:
        instant: datetime = (await session.execute(SELECT_NOW, {"instant": self._clock.instant()})).scalar_one()
        return instant

    async def _in_one(self, body: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
        async def once() -> Result:
            async with self._manager.session() as session:
                return await body(session)

        return await self._manager.resilience.run(once, repeatable=True)


class PostgresGuestMergeRepository(BaseRepository):
    """Implements `GuestMergeRepository`."""

    def __init__(self, session: AsyncSession, hash_user_id: UserHashFunction, clock: Clock | None = None) -> None:
        """`hash_user_id` hashes user ids."""
        super().__init__(session, clock)
        self._hash_user_id = hash_user_id

    async def lock(self, guest_id: str, user_id: str) -> None:
        subjects = [self._hash_user_id(guest_id), self._hash_user_id(user_id)]
        await self.session.execute(LOCK_SUBJECTS, {"subjects": subjects})
        erasing = select(col(Erasure.id)).where(
            col(Erasure.subject_hash).in_(subjects), col(Erasure.finished_at).is_(None)
        )
        if (await self.session.execute(erasing)).first() is not None:
            raise AccountErasedError

    async def find_merge(self, guest_id: str) -> GuestMerge | None:
        return await self.session.get(GuestMerge, guest_id)

    async def is_guest(self, guest_id: str) -> bool | None:
        account = await self.session.get(UserCredits, guest_id)
        return None if account is None else account.is_guest

    async def move_rows(self, holdings: Sequence[PersonalDataTable], guest_id: str, user_id: str) -> dict[str, int]:
        return {one.name: await move_rows(self.session, one, guest_id, user_id) for one in holdings}

    async def insert_merge(self, guest_id: str, user_id: str, moved: dict[str, int]) -> GuestMerge:
        now = (await self.session.execute(SELECT_NOW, {"instant": self.clock.instant()})).scalar_one()
        merge = GuestMerge(guest_id=guest_id, user_id=user_id, merged_at=now, moved=moved)
        self.session.add(merge)
        await self.session.flush()
        return merge
