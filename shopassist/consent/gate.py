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
"""Time during which the signal of a subject is not checked again."""
MAX_CACHED_SIGNALS = 10_000


class ConsentGate:
    """Refuses callers who must agree to the terms first; without `required` or a signal it reads nothing."""

    def __init__(
        self,
        lookup: ConsentLookup,
        published: PublishedNoticeCache,
        history: ConsentHistoryService,
        required: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Share `published` with the other services of this process."""
        self._lookup = lookup
        self._published = published
        self._history = history
        self.required = required
        self._has_logged_missing_terms = False
        self._recent_signals: TTLCache[ConsentSubject, bool] = TTLCache(
            MAX_CACHED_SIGNALS, SIGNAL_TTL_SECONDS, timer=monotonic
        )

    async def check(self, subject: ConsentSubject, provenance: ConsentProvenance) -> None:
        """Apply the privacy signal of the request and, where consent is required, check it.

        Raises `ConsentRequiredError` when the terms are not agreed to, and `StorageUnavailableError` when that cannot
        be read: a caller who might not have agreed is not served.
        """
        if provenance.privacy_signal and subject not in self._recent_signals:
            await self._apply_signal(subject, provenance)
        if self.required:
            await self._require_terms(subject)

    def forget_signal(self, subject: ConsentSubject) -> None:
        """Check the next signal of the subject again, since it is about to decide."""
        self._recent_signals.pop(subject, None)

    async def _apply_signal(self, subject: ConsentSubject, provenance: ConsentProvenance) -> None:
        try:
            decision = await self._lookup.get_latest_decision(subject, SIGNAL_PURPOSE)
            if decision is not None and decision.granted:
                await self._history.apply_privacy_signal(subject, provenance)
        except StorageUnavailableError:
            # The next request carries the signal too, and this one may be answered from memory.
            return
        self._recent_signals[subject] = True

    async def _require_terms(self, subject: ConsentSubject) -> None:
        notices = [notice for notice in await self._published.get() if notice.purpose == TERMS]
        decision = await self._lookup.get_latest_decision(subject, TERMS)
        if not notices and not self._has_logged_missing_terms:
            logger.error("terms_not_published", reason=TERMS_NOT_PUBLISHED)
        self._has_logged_missing_terms = not notices
        if decision is None or not decision.granted or (decision.version or 0) < get_binding_version(notices):
            raise build_consent_error(notices)


def get_binding_version(notices: list[PublishedNotice]) -> int:
    """Return the lowest version that is still enough: the newest binding one, at least 1."""
    return max((notice.version for notice in notices if notice.is_binding), default=1)


def build_consent_error(notices: list[PublishedNotice]) -> ConsentRequiredError:
    """Build the error that names the notices to agree to and the paths for it."""
    current = get_current_notices(notices).get(TERMS, [])
    return ConsentRequiredError(
        notices=[notice_to_reference(notice).model_dump() for notice in current], agree_at=AGREE_PATH, read_at=READ_PATH
    )
