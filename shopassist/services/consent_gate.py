"""What a question passes before anything is done for it: the browser's privacy signal, and the agreement it needs."""

import time
from collections.abc import Callable

import structlog
from cachetools import TTLCache

from shopassist.db.accountability import ConsentLookup
from shopassist.errors import ConsentRequiredError, StorageUnavailableError
from shopassist.models.consent_history import Origin, Subject
from shopassist.models.notice import TERMS, PublishedNotice
from shopassist.services.consent_changes import SIGNALLED
from shopassist.services.consent_history import ConsentHistoryService, reference
from shopassist.services.notices import PublishedNotices, current_of

logger = structlog.get_logger(__name__)

AGREE_AT = "/api/consents"
READ_AT = "/api/notices"

UNPUBLISHED = "CONSENT_REQUIRED is set and no terms are published: every question is refused. See docs/consent.md."

HEEDED_SECONDS = 60.0
"""How long a signal that changed nothing is not looked into again."""
MOST_HEEDED = 10_000


class ConsentGate:
    """Lets those pass who agreed. Without `required` and without a signal it asks the database nothing."""

    def __init__(
        self,
        lookup: ConsentLookup,
        published: PublishedNotices,
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
        self._heeded: TTLCache[Subject, bool] = TTLCache(MOST_HEEDED, HEEDED_SECONDS, timer=monotonic)

    async def admit(self, subject: Subject, origin: Origin) -> None:
        """Heed the signal of a question and see that its asker has agreed.

        Raises `ConsentRequiredError` when the terms are not agreed to, and `StorageUnavailableError` when that cannot
        be known: who might not have agreed is not served.
        """
        if origin.privacy_signal and subject not in self._heeded:
            await self._heed(subject, origin)
        if self.required:
            await self._require(subject)

    def forget(self, subject: Subject) -> None:
        """Look into the next signal again: the subject decides anew."""
        self._heeded.pop(subject, None)

    async def _heed(self, subject: Subject, origin: Origin) -> None:
        try:
            agreement = await self._lookup.agreement(subject, SIGNALLED)
            if agreement is not None and agreement.granted:
                await self._history.heed_signal(subject, origin)
        except StorageUnavailableError:
            # It comes with the next request as well; whether this one can be served is not the signal's question.
            return
        self._heeded[subject] = True

    async def _require(self, subject: Subject) -> None:
        notices = [notice for notice in await self._published.all() if notice.purpose == TERMS]
        agreement = await self._lookup.agreement(subject, TERMS)
        if not notices and not self._is_told:
            logger.error("terms_not_published", reason=UNPUBLISHED)
        self._is_told = not notices
        if agreement is None or not agreement.granted or (agreement.version or 0) < binding_version(notices):
            raise refusal(notices)


def binding_version(notices: list[PublishedNotice]) -> int:
    """The version below which an agreement does not do. The first binds at once, so it is 1 at the least."""
    return max((notice.version for notice in notices if notice.is_binding), default=1)


def refusal(notices: list[PublishedNotice]) -> ConsentRequiredError:
    """The error for somebody who has to agree, who is told to what and where."""
    current = current_of(notices).get(TERMS, [])
    return ConsentRequiredError(
        notices=[reference(notice).model_dump() for notice in current], agree_at=AGREE_AT, read_at=READ_AT
    )
