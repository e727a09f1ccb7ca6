"""Consent records in PostgreSQL."""

from typing import Any

from sqlalchemy import insert, update
from sqlmodel import col, select

from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import UserConsent


class PostgresConsentRepository(BaseRepository):
    """Implements `ConsentRepository`."""

    async def get_consent(self, user_id: str) -> UserConsent | None:
        return await self.session.get(UserConsent, user_id)

    async def create_consent(self, consent: UserConsent) -> UserConsent:
        now = self.now()
        values = consent.model_dump(exclude={"timestamp"}) | {"timestamp": now, "updated_at": now}
        statement = insert(UserConsent).values(values).returning(UserConsent)
        return (await self.session.execute(statement)).scalar_one()

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None:
        if not updates:
            return await self.get_consent(user_id)
        statement = (
            update(UserConsent)
            .where(col(UserConsent.user_id) == user_id)
            .values(**updates, updated_at=self.now())
            .returning(UserConsent)
            .execution_options(populate_existing=True)
        )
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        statement = select(UserConsent).order_by(col(UserConsent.user_id)).limit(limit)
        if after_user_id is not None:
            statement = statement.where(col(UserConsent.user_id) > after_user_id)
        return list((await self.session.execute(statement)).scalars())
