"""Check consent to the terms and apply the privacy signal before a question is answered."""

import time
from collections.abc import Callable

import structlog
from cachetools import TTLCache

from shopassist.consent.models import TERMS, ConsentProvenance, ConsentSubject, PublishedNotice
from shopassist.consent.notices import PublishedNoticeCache, get_current_notices, notice_to_reference
from shopassist.consent.ports import ConsentLookup
from shopassist.consent.service import SIGNAL_PURPOSE, ConsentHistoryService
from shopassist.errors import ConsentRequiredError, StorageUnavailableError

logger = structlog.get_logger(__name__)

AGREE_PATH = "/api/consents"
READ_PATH = "/api/notices"

TERMS_NOT_PUBLISHED = (
    "CONSENT_REQUIRED is set and no terms are published: every question is refused. See docs/consent.md."
)

SIGNAL_TTL_SECONDS = 60.0
"""How long a signal that changed nothing is not looked into again."""
MAX_CACHED_SIGNALS = 10_000


class ConsentGate:
    """Lets those pass who agreed. Without `required` and without a signal it asks the database nothing."""

    def __init__(
        self,
        lookup: ConsentLookup,
        published: PublishedNoticeCache,
        history: ConsentHistoryService,
        required: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`published` and what was heeded are the process's."""
        self._lookup = lookup
        self._published = published
        self._history = history
        self.required = required
        self._is_told = False
        self._heeded: TTLCache[ConsentSubject, bool] = TTLCache(MAX_CACHED_SIGNALS, SIGNAL_TTL_SECONDS, timer=monotonic)

    async def check(self, subject: ConsentSubject, origin: ConsentProvenance) -> None:
        """Heed the signal of a question and see that its asker has agreed.

        Raises `ConsentRequiredError` when the terms are not agreed to, and `StorageUnavailableError` when that cannot
        be known: who might not have agreed is not served.
        """
        if origin.privacy_signal and subject not in self._heeded:
            await self._heed(subject, origin)
        if self.required:
            await self._require(subject)

    def forget_signal(self, subject: ConsentSubject) -> None:
        """Look into the next signal again: the subject decides anew."""
        self._heeded.pop(subject, None)

    async def _heed(self, subject: ConsentSubject, origin: ConsentProvenance) -> None:
        try:
            agreement = await self._lookup.get_latest_decision(subject, SIGNAL_PURPOSE)
            if agreement is not None and agreement.granted:
                await self._history.apply_privacy_signal(subject, origin)
        except StorageUnavailableError:
            # It comes with the next request as well; whether this one can be served is not the signal's question.
            return
        self._heeded[subject] = True

    async def _require(self, subject: ConsentSubject) -> None:
        notices = [notice for notice in await self._published.get() if notice.purpose == TERMS]
        agreement = await self._lookup.get_latest_decision(subject, TERMS)
        if not notices and not self._is_told:
            logger.error("terms_not_published", reason=TERMS_NOT_PUBLISHED)
        self._is_told = not notices
        if agreement is None or not agreement.granted or (agreement.version or 0) < get_binding_version(notices):
            raise build_consent_error(notices)


def get_binding_version(notices: list[PublishedNotice]) -> int:
    """The version below which an agreement does not do. The first binds at once, so it is 1 at the least."""
    return max((notice.version for notice in notices if notice.is_binding), default=1)


def build_consent_error(notices: list[PublishedNotice]) -> ConsentRequiredError:
    """The error for somebody who has to agree, who is told to what and where."""
    current = get_current_notices(notices).get(TERMS, [])
    return ConsentRequiredError(
        notices=[notice_to_reference(notice).model_dump() for notice in current], agree_at=AGREE_PATH, read_at=READ_PATH
    )
