"""Erasure in PostgreSQL."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import CursorResult, delete, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from shopassist.db.manager import DatabaseManager
from shopassist.db.ports import Clock
from shopassist.db.postgres import erasure_statements
from shopassist.db.postgres.holdings import erase, is_held
from shopassist.models import CreditHold, ErasedBalance, Erasure, UserCredits
from shopassist.models.erasing import balance_of, begun, closed, closing, is_of_guest
from shopassist.models.erasure import ErasurePolicy, ErasureRequest, Listed
from shopassist.models.holdings import held_by

Result = TypeVar("Result")


class PostgresErasures:
    """Implements `Erasures`."""

    def __init__(self, manager: DatabaseManager, policy: ErasurePolicy, clock: Clock) -> None:
        """`policy` says how long what is needed of the erased stays."""
        self._manager = manager
        self._policy = policy
        self._clock = clock

    async def begin(self, request: ErasureRequest) -> Erasure | None:
        return await self._in_one(lambda session: self._begin(session, request))

    async def advance(self, erasure_id: UUID, limit: int = 2000) -> Erasure:
        return await self._in_one(lambda session: self._advance(session, erasure_id, limit))

    async def unfinished(self, limit: int = 100) -> list[UUID]:
        statement = select(Erasure.id).where(col(Erasure.finished_at).is_(None))
        statement = statement.order_by(col(Erasure.requested_at)).limit(limit)

        async def find(session: AsyncSession) -> list[UUID]:
            return list((await session.execute(statement)).scalars())

        return await self._in_one(find)

    async def listed(self, limit: int = 1000, after: Listed | None = None) -> list[Listed]:
        order = (col(Erasure.requested_at), col(Erasure.id))
        statement = select(Erasure).order_by(*order).limit(limit)
        if after is not None:
            statement = statement.where(tuple_(*order) > (after.erased_at, after.id))

        async def find(session: AsyncSession) -> list[Listed]:
            rows = (await session.execute(statement)).scalars()
            return [Listed(row.id, row.subject_hash, row.requested_at) for row in rows]

        return await self._in_one(find)

    async def forget(self, limit: int = 1000) -> int:
        async def remove(session: AsyncSession) -> int:
            removed = 0
            for statement in (erasure_statements.FORGET_BALANCES, erasure_statements.FORGET_ERASURES):
                parameters = {"limit": limit, "instant": self._clock.instant(), "lifetime": self._policy.list_lifetime}
                used = {name: parameters[name] for name in statement.compile().params}
                result = await session.execute(statement, used)
                removed += result.rowcount if isinstance(result, CursorResult) else 0
            return removed

        return await self._in_one(remove)

    async def _begin(self, session: AsyncSession, request: ErasureRequest) -> Erasure | None:
        await session.execute(erasure_statements.LOCK_SUBJECTS, {"subjects": [request.subject_hash]})
        earlier = select(Erasure).where(Erasure.subject_hash == request.subject_hash)
        earlier = earlier.order_by(col(Erasure.finished_at).desc().nulls_first()).limit(1)
        last = (await session.execute(earlier)).scalar_one_or_none()
        account = await session.get(UserCredits, request.user_id, with_for_update=True)
        is_guest = is_of_guest(request, account, last)
        if last is not None and last.finished_at is None:
            return last
        holdings = held_by(is_guest, account is not None)
        if account is None and not [one for one in holdings if await is_held(session, one, request.user_id, is_guest)]:
            return last
        erasure = begun(request, is_guest, account is not None, await self._now(session))
        if account is not None:
            await self._close(session, account, erasure)
        session.add(erasure)
        await session.flush()
        return erasure

    async def _close(self, session: AsyncSession, account: UserCredits, erasure: Erasure) -> None:
        """Give holds back, keep the balance under the hash, and let a closed account stand under the pseudonym."""
        holds = delete(CreditHold).where(col(CreditHold.user_id) == account.user_id).returning(col(CreditHold.hold_id))
        erasure.counts = {"account": 1, "holds": len((await session.execute(holds)).all())}
        balance = balance_of(account, erasure, self._policy).model_dump()
        keep = insert(ErasedBalance).values(balance)
        await session.execute(keep.on_conflict_do_update(index_elements=["subject_hash"], set_=balance))
        await session.delete(account)
        session.add(closed(account, erasure))
        last_row = closing(account, erasure)
        if last_row is not None:
            session.add(last_row)

    async def _advance(self, session: AsyncSession, erasure_id: UUID, limit: int) -> Erasure:
        erasure = await session.get_one(Erasure, erasure_id, with_for_update=True)
        if erasure.user_id is None or erasure.pseudonym is None:
            return erasure
        await session.execute(erasure_statements.ALLOW, {"user_id": erasure.user_id})
        left, counts = limit, dict(erasure.counts)
        for one in held_by(erasure.is_guest, erasure.had_account):
            if left > 0:
                erased = await erase(session, one, erasure.user_id, erasure.is_guest, erasure.pseudonym, left)
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
        instant: datetime = (
            await session.execute(erasure_statements.MOMENT, {"instant": self._clock.instant()})
        ).scalar_one()
        return instant

    async def _in_one(self, body: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
        async def once() -> Result:
            async with self._manager.session() as session:
                return await body(session)

        return await self._manager.resilience.run(once, repeatable=True)
