"""Consent: what a registered user has agreed to."""

from shopassist.db.freshness import LaggingReads
from shopassist.db.ports import Clock, Repositories, UnitOfWork
from shopassist.errors import TermsNotAcceptedError
from shopassist.models import UserConsent, UserConsentCreate, UserConsentUpdate
from shopassist.models.columns import utc_now
from shopassist.models.text import valid_user_id


class UserConsentService:
    """One record a user, created once."""

    def __init__(self, unit_of_work: UnitOfWork, clock: Clock, lagging_reads: LaggingReads | None = None) -> None:
        """`clock` stamps the records; `lagging_reads` lists them, or else `unit_of_work` does."""
        self._lagging_reads = lagging_reads or unit_of_work
        self._unit_of_work = unit_of_work
        self._clock = clock

    async def create_consent(self, user_id: str, consent: UserConsentCreate) -> UserConsent:
        """Record an agreement. Raises `TermsNotAcceptedError`, and `ConsentExistsError` when there is a record."""
        if not consent.terms_accepted:
            raise TermsNotAcceptedError
        now = self._clock.instant() or utc_now()
        record = UserConsent(user_id=valid_user_id(user_id), timestamp=now, updated_at=now, **consent.model_dump())

        async def recorded(work: Repositories) -> UserConsent | None:
            stored = await work.consents.get_consent(user_id)
            return stored if stored and stored.timestamp == now else None

        return await self._unit_of_work.run(lambda work: work.consents.create_consent(record), recorded)

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
        return await self._lagging_reads.run(lambda work: work.consents.list_consents(limit, after_user_id))
