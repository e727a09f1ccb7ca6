"""`MemoryRepository`, the base class of the PostgreSQL repositories."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, cast, func, literal
from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.columns import Timestamp
from shopassist.db.ports import Clock, SystemClock


class BaseRepository:
    """A repository speaks within one session; who opened the session commits it."""

    def __init__(self, session: AsyncSession, clock: Clock | None = None) -> None:
        """Without a clock the database's own decides."""
        self.session = session
        self.clock = clock or SystemClock()

    async def commit(self) -> None:
        """Keep what was done."""
        await self.session.commit()

    async def rollback(self) -> None:
        """Undo what was done."""
        await self.session.rollback()

    def now(self) -> ColumnElement[Any]:
        """The deciding instant as an SQL expression."""
        instant: datetime | None = self.clock.instant()
        return func.now() if instant is None else cast(literal(instant), Timestamp)
