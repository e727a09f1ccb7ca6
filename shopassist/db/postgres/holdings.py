"""What is held of people, read and changed in PostgreSQL by what the list of holdings says of each table."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, delete, exists, func, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.manager import DatabaseManager
from shopassist.db.privacy import HeldPage, Key, Trace
from shopassist.models.holdings import Holding, OnErasure


def table_of(holding: Holding) -> Table:
    """The table."""
    table: Table = holding.table.__table__  # type: ignore[attr-defined]
    return table


def owner_of(holding: Holding, table: Any) -> ColumnElement[Any]:
    """Whose a row is."""
    column, *inside = holding.owner
    owner: ColumnElement[Any] = table.c[column]
    return owner[inside[0]].as_string() if inside else owner


def mine(holding: Holding, user_id: str, is_guest: bool) -> list[ColumnElement[bool]]:
    """The condition that a row is of that user."""
    table = table_of(holding)
    conditions = [owner_of(holding, table) == user_id]
    return [*conditions, table.c[holding.kind] == is_guest] if holding.kind else conditions


def key_of(holding: Holding) -> list[ColumnElement[Any]]:
    """The primary key."""
    return [table_of(holding).c[name] for name in holding.key]


async def is_held(session: AsyncSession, holding: Holding, user_id: str, is_guest: bool) -> bool:
    """Whether there is anything."""
    statement = select(literal(1)).select_from(table_of(holding)).where(*mine(holding, user_id, is_guest)).limit(1)
    return (await session.execute(statement)).first() is not None


async def erase(
    session: AsyncSession, holding: Holding, user_id: str, is_guest: bool, pseudonym: str, limit: int
) -> int:
    """Erase up to `limit` rows by the holding's own rule; how many."""
    table, key = table_of(holding), key_of(holding)
    # An array, so that the rows are found once and then by their place, however large the table is.
    found = select(*key).where(*mine(holding, user_id, is_guest)).order_by(*key).limit(limit)
    rows: Sequence[Row[Any]] = (await session.execute(found)).all()
    if not rows:
        return 0
    chosen = key[0].in_([row[0] for row in rows]) if len(key) == 1 else tuple_(*key).in_([tuple(row) for row in rows])
    if holding.on_erasure in {OnErasure.DELETE, OnErasure.WITH_ACCOUNT}:
        await session.execute(delete(table).where(chosen))
        return len(rows)
    owner = None if holding.on_erasure is OnErasure.DISOWN else pseudonym
    values = {holding.owner[0]: owner, **dict.fromkeys(holding.cleared)}
    await session.execute(update(table).where(chosen).values(values))
    return len(rows)


async def move(session: AsyncSession, holding: Holding, guest_id: str, user_id: str) -> int:
    """Make a guest's rows the user's, but those whose key the user has already; how many."""
    table = table_of(holding)
    theirs = table.alias()
    rest = [theirs.c[name] == table.c[name] for name in holding.key if name != holding.owner[0]]
    conditions = mine(holding, guest_id, is_guest=True)
    if holding.owner[0] in holding.key:
        conditions.append(~exists().where(owner_of(holding, theirs) == user_id, *rest))
    values: dict[str, Any] = {holding.owner[0]: user_id, **({holding.kind: False} if holding.kind else {})}
    statement = update(table).where(*conditions).values(values).returning(literal(1))
    return len((await session.execute(statement)).all())


class PostgresHoldings:
    """Implements `Holdings`."""

    def __init__(self, manager: DatabaseManager) -> None:
        """Each page is a transaction of its own."""
        self._manager = manager

    async def page(
        self, holding: Holding, user_id: str, is_guest: bool, limit: int, after: Key | None = None
    ) -> HeldPage:
        table, key = table_of(holding), key_of(holding)
        columns = [table.c[name] for name in holding.exported]
        statement = select(*columns, *(column.label(f"key_{column.name}") for column in key))
        statement = statement.where(*mine(holding, user_id, is_guest)).order_by(*key).limit(limit)
        if after is not None:
            behind = key[0] > after[0] if len(key) == 1 else tuple_(*key) > tuple_(*map(literal, after))
            statement = statement.where(behind)

        async def once() -> Sequence[Row[Any]]:
            async with self._manager.session() as session:
                return (await session.execute(statement)).all()

        rows = await self._manager.resilience.run(once, repeatable=True)
        last = tuple(rows[-1][len(columns) :]) if len(rows) == limit else None
        return HeldPage([dict(zip(holding.exported, row, strict=False)) for row in rows], last)

    async def traces(self, holding: Holding, limit: int, after_user_id: str = "") -> list[Trace]:
        table = table_of(holding)
        owner = owner_of(holding, table)
        kinds: list[ColumnElement[Any]] = [func.bool_and(table.c[holding.kind])] if holding.kind else []
        statement: Any = select(owner, func.min(table.c[holding.since or ""]), *kinds).where(owner > after_user_id)
        statement = statement.group_by(owner).order_by(owner).limit(limit)

        async def once() -> Sequence[Row[Any]]:
            async with self._manager.session() as session:
                return (await session.execute(statement)).all()

        rows: Sequence[Any] = await self._manager.resilience.run(once, repeatable=True)
        return [Trace(row[0], row[2] if kinds else None, row[1]) for row in rows]
