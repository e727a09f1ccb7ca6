"""Consent: what a registered user has agreed to."""

from datetime import datetime

from shopassist.db.ports import Repositories, UnitOfWork
from shopassist.errors import TermsNotAcceptedError
from shopassist.models import UserConsent, UserConsentCreate, UserConsentUpdate
from shopassist.models.text import valid_user_id


class UserConsentService:
    """One record a user, created once."""

    def __init__(self, unit_of_work: UnitOfWork) -> None:
        """Records are kept by `unit_of_work`, which stamps them."""
        self._unit_of_work = unit_of_work

    async def create_consent(self, user_id: str, consent: UserConsentCreate) -> UserConsent:
        """Record an agreement. Raises `TermsNotAcceptedError`, and `ConsentExistsError` when there is a record."""
        if not consent.terms_accepted:
            raise TermsNotAcceptedError
        record = UserConsent(user_id=valid_user_id(user_id), **consent.model_dump())
        stamps: list[datetime] = []
        """What the database stamped the record with, whether or not that was committed."""

        async def create(work: Repositories) -> UserConsent:
            created = await work.consents.create_consent(record)
            stamps.append(created.timestamp)
            return created

        async def recorded(work: Repositories) -> UserConsent | None:
            stored = await work.consents.get_consent(user_id)
            return stored if stored and stored.timestamp in stamps else None

        return await self._unit_of_work.run(create, recorded)

    async def get_consent(self, user_id: str) -> UserConsent | None:
        """The record, or None."""
        valid_user_id(user_id)
        return await self._unit_of_work.run(lambda work: work.consents.get_consent(user_id), repeatable=True)

    async def update_consent(self, user_id: str, update: UserConsentUpdate) -> UserConsent | None:
        """Change what `update` sets, or, where it sets nothing, write nothing. None when there is no record."""
        changes = update.model_dump(exclude_none=True)
        valid_user_id(user_id)
        return await self._unit_of_work.run(
            lambda work: work.consents.update_consent(user_id, **changes), repeatable=True
        )

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        """Records by user id; with `after_user_id` those behind it."""
        return await self._unit_of_work.run(
            lambda work: work.consents.list_consents(limit, after_user_id), repeatable=True
        )
