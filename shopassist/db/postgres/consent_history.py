"""The history of consent in PostgreSQL."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, cast, func, insert, literal, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlmodel import col, select

from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import ConsentEvent
from shopassist.models.columns import Timestamp
from shopassist.models.consent_history import Subject

LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('consent ' || CAST(:user_id AS text), 0))")


class PostgresConsentHistory(BaseRepository):
    """Implements `ConsentHistory`."""

    async def lock(self, subject: Subject) -> None:
        await self.session.execute(LOCK, {"user_id": subject.user_id})

    async def state(self, subject: Subject) -> dict[str, ConsentEvent]:
        event = ConsentEvent
        statement = (
            select(event)
            .where(_of(subject))
            .ext(distinct_on(col(event.purpose)))
            .order_by(col(event.purpose).desc(), col(event.id).desc())
        )
        return {found.purpose: found for found in (await self.session.execute(statement)).scalars()}

    async def append(self, events: Sequence[ConsentEvent]) -> list[ConsentEvent]:
        # Not now(), which is when the transaction began: who waited for the lock would seem to have come first.
        instant = self.clock.instant()
        moment = func.clock_timestamp() if instant is None else cast(literal(instant), Timestamp)
        rows = [{**event.model_dump(exclude={"id", "timestamp"}), "timestamp": moment} for event in events]
        statement = insert(ConsentEvent).values(rows).returning(ConsentEvent)
        return sorted((await self.session.execute(statement)).scalars(), key=lambda event: event.id or 0)

    async def page(self, subject: Subject, limit: int, before_id: int | None = None) -> list[ConsentEvent]:
        statement = select(ConsentEvent).where(_of(subject)).order_by(col(ConsentEvent.id).desc()).limit(limit)
        if before_id is not None:
            statement = statement.where(col(ConsentEvent.id) < before_id)
        return list((await self.session.execute(statement)).scalars())


def _of(subject: Subject) -> ColumnElement[bool]:
    return and_(col(ConsentEvent.user_id) == subject.user_id, col(ConsentEvent.is_guest) == subject.is_guest)
