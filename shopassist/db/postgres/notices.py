"""Notices in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, insert, text
from sqlmodel import col, select

from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import ConsentNotice
from shopassist.models.notice import PublishedNotice

LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('shopassist.notices', 0))")

PUBLISHED = text("""
SELECT id, purpose, version, locale, sha256, published_at, binding_from,
       binding_from <= COALESCE(CAST(:instant AS timestamptz), now()) AS is_binding
FROM consent_notices ORDER BY purpose, version, id
""")


class PostgresNoticeRepository(BaseRepository):
    """Implements `NoticeRepository`."""

    async def lock(self) -> None:
        await self.session.execute(LOCK)

    async def publish(self, notice: ConsentNotice, grace_hours: float) -> ConsentNotice:
        row = ConsentNotice
        since = (
            select(func.min(col(row.binding_from)))
            .where(col(row.purpose) == notice.purpose, col(row.version) == notice.version)
            .scalar_subquery()
        )
        values = {
            **notice.model_dump(exclude={"id", "published_at", "binding_from"}),
            "published_at": self.now(),
            "binding_from": func.coalesce(since, self.now() + timedelta(hours=grace_hours)),
        }
        statement = insert(row).values(values).returning(row)
        return (await self.session.execute(statement)).scalar_one()

    async def get(self, notice_id: int) -> ConsentNotice | None:
        return await self.session.get(ConsentNotice, notice_id)

    async def texts(self, notice_ids: Sequence[int]) -> list[ConsentNotice]:
        row = ConsentNotice
        statement = select(row).where(col(row.id).in_(notice_ids)).order_by(col(row.purpose), col(row.id))
        return list((await self.session.execute(statement)).scalars())

    async def all(self) -> list[PublishedNotice]:
        rows = (await self.session.execute(PUBLISHED, {"instant": self.clock.instant()})).all()
        return [published(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's name for a public thing


def published(row: Any) -> PublishedNotice:
    """A row of `PUBLISHED`."""
    return PublishedNotice(**dict(row))
