"""Consent records in memory."""

from typing import Any

from shopassist.db.memory.repository import BaseRepository, copied
from shopassist.errors import ConsentExistsError
from shopassist.models import UserConsent


class MemoryConsentRepository(BaseRepository):
    """Implements `ConsentRepository`."""

    async def get_consent(self, user_id: str) -> UserConsent | None:
        consent = self.store.consents.get(user_id)
        return consent and copied(consent)

    async def create_consent(self, consent: UserConsent) -> UserConsent:
        if consent.user_id in self.store.consents:
            raise ConsentExistsError
        now = self.store.now()
        created = copied(consent, timestamp=now, updated_at=now)
        self.session.put(self.store.consents, consent.user_id, created)
        return copied(created)

    async def update_consent(self, user_id: str, **updates: Any) -> UserConsent | None:
        consent = self.store.consents.get(user_id)
        if consent is None or not updates:
            return consent and copied(consent)
        changed = copied(consent, **updates, updated_at=self.store.now())
        self.session.put(self.store.consents, user_id, changed)
        return copied(changed)

    async def list_consents(self, limit: int | None = None, after_user_id: str | None = None) -> list[UserConsent]:
        behind = sorted(key for key in self.store.consents if after_user_id is None or key > after_user_id)
        return [copied(self.store.consents[key]) for key in behind[:limit]]
