"""`BaseRepository`, the base class of the PostgreSQL repositories."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, cast, func, literal
from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.columns import Timestamp
from shopassist.db.ports import Clock, SystemClock


class BaseRepository:
    """Base class of repositories. The unit of work that opened the session commits it."""

    def __init__(self, session: AsyncSession, clock: Clock | None = None) -> None:
        """Use the database's clock by default."""
        self.session = session
        self.clock = clock or SystemClock()

    async def commit(self) -> None:
        """Commit the transaction."""
        await self.session.commit()

    async def rollback(self) -> None:
        """Roll back the transaction."""
        await self.session.rollback()

    def now(self) -> ColumnElement[Any]:
        """Return the deciding instant as an SQL expression."""
        instant: datetime | None = self.clock.instant()
        return func.now() if instant is None else cast(literal(instant), Timestamp)
