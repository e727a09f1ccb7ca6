"""Publish notices, select the current ones, and refuse callers who must agree to the terms first."""

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog
from cachetools import TTLCache

from shopassist.audit.models import PUBLISH_NOTICE, AdminAct
from shopassist.consent.models import (
    TERMS,
    ConsentNotice,
    ConsentProvenance,
    ConsentSubject,
    NoticePublication,
    PublishedNotice,
    compute_sha256,
    get_current_notices,
    list_references,
)
from shopassist.consent.ports import ConsentLookup, ConsentRepositories
from shopassist.consent.service import SIGNAL_PURPOSE, ConsentHistoryService
from shopassist.db.columns import utc_now
from shopassist.db.ports import UnitOfWork
from shopassist.errors import (
    ConsentRequiredError,
    InvalidInputError,
    NotFoundError,
    NoticeExistsError,
    StorageUnavailableError,
)

logger = structlog.get_logger(__name__)

PUBLISHED_TTL_SECONDS = 2.0
"""Maximum age of the cached list of notices."""


class PublishedNoticeCache:
    """Cached list of the published notices, without their texts."""

    def __init__(
        self,
        read: Callable[[], Awaitable[list[PublishedNotice]]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` reads the list from the database."""
        self._read = read
        self._monotonic = monotonic
        self._notices: list[PublishedNotice] = []
        self._fresh_until = float("-inf")
        self._is_reading = False

    async def get(self) -> list[PublishedNotice]:
        """Return notices by purpose, version and id, at most `PUBLISHED_TTL_SECONDS` old.

        While one caller reads the database, others get the previous list. Raises `StorageUnavailableError`.
        """
        started_at = self._monotonic()
        if started_at < self._fresh_until or (self._is_reading and self._notices):
            return self._notices
        self._is_reading = True
        try:
            self._notices = await self._read()
        finally:
            self._is_reading = False
        self._fresh_until = started_at + PUBLISHED_TTL_SECONDS
        return self._notices

    def invalidate(self) -> None:
        """Make the next `get` read the database."""
        self._fresh_until = float("-inf")


class NoticeService:
    """Publishes and finds notices."""

    def __init__(
        self, unit_of_work: UnitOfWork[ConsentRepositories], published: PublishedNoticeCache, grace_hours: float
    ) -> None:
        """`grace_hours`: default time until a new version is binding."""
        self._unit_of_work = unit_of_work
        self._published = published
        self._grace_hours = grace_hours

    async def publish(
        self, publication: NoticePublication, actor: str, reason: str | None = None, request_id: str | None = None
    ) -> ConsentNotice:
        """Publish a text with an audit entry; a repetition changes nothing.

        Raises `InvalidInputError` for a version that is neither the newest nor the next, or whose text the newest
        version has already, and `NoticeExistsError` when the version has another text in this language.
        """

        async def insert(work: ConsentRepositories) -> ConsentNotice:
            await work.notices.lock()
            same_purpose = [
                notice for notice in await work.notices.list_published() if notice.purpose == publication.purpose
            ]
            notice = build_notice(publication, same_purpose)
            for other in same_purpose:
                if (other.version, other.locale) == (notice.version, notice.locale):
                    stored = await work.notices.get_notice(other.id)
                    if stored is None or stored.sha256 != notice.sha256:
                        raise NoticeExistsError
                    return stored
            # The first version is binding at once, since there is no agreement to an earlier one.
            grace = self._grace_hours if publication.grace_hours is None else publication.grace_hours
            stored = await work.notices.insert_notice(notice, grace if notice.version > 1 else 0)
            target = f"{notice.purpose} {notice.version} {notice.locale}"
            await work.admin_audit.record(
                AdminAct(actor=actor, act=PUBLISH_NOTICE, target=target, reason=reason, request_id=request_id)
            )
            return stored

        notice = await self._unit_of_work.run(insert, repeatable=True)
        self._published.invalidate()
        return notice

    async def list_notices(self) -> list[PublishedNotice]:
        """Return all notices without their texts, by purpose, version and id."""
        return await self._unit_of_work.run(lambda work: work.notices.list_published(), repeatable=True)

    async def get_current(self, locales: Sequence[str]) -> list[ConsentNotice]:
        """Return the newest text for each purpose in the first available of `locales`, or its first language."""
        current = get_current_notices(await self._published.get())
        chosen = [select_by_locale(notices, locales).id for notices in current.values()]
        if not chosen:
            return []
        return await self._unit_of_work.run(lambda work: work.notices.get_notices(chosen), repeatable=True)

    async def get_notice(self, notice_id: int) -> ConsentNotice:
        """Return a notice, current or not. Raises `NotFoundError`."""
        notice = await self._unit_of_work.run(lambda work: work.notices.get_notice(notice_id), repeatable=True)
        if notice is None:
            raise NotFoundError("There is no such notice.")
        return notice


def build_notice(publication: NoticePublication, published: Sequence[PublishedNotice]) -> ConsentNotice:
    """Build the notice to insert; `published` are the notices of its purpose. Raises `InvalidInputError`."""
    newest = max((notice.version for notice in published), default=0)
    digest = compute_sha256(publication.text)
    is_known = digest in {notice.sha256 for notice in published if notice.version == newest}
    version = publication.version or (newest if is_known else newest + 1)
    if version not in {newest, newest + 1}:
        raise InvalidInputError(f"version must be {newest + 1}, or {newest} for a translation; not {version}.")
    if version > newest and is_known:
        raise InvalidInputError(f"Version {newest} has this very text: users need not be asked again.")
    return ConsentNotice(
        purpose=publication.purpose,
        version=version,
        locale=publication.locale,
        sha256=digest,
        text=publication.text,
        binding_from=utc_now(),
    )


def select_by_locale(notices: Sequence[PublishedNotice], locales: Sequence[str]) -> PublishedNotice:
    """Return the notice in the most preferred language: `hi` matches `hi-IN`, and any `hi-…` matches `hi`."""
    for locale in locales:
        prefix = locale.lower()
        while prefix:
            for notice in notices:
                if notice.locale.lower() == prefix:
                    return notice
            prefix = prefix.rpartition("-")[0]
        for notice in notices:
            if notice.locale.lower().startswith(f"{locale.lower()}-"):
                return notice
    return notices[0]


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
        self._required = required
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
        if self._required:
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
        # An agreement to the newest binding version is needed, or to any version while none is binding.
        needed = max((notice.version for notice in notices if notice.is_binding), default=1)
        if decision is None or not decision.granted or (decision.version or 0) < needed:
            current = get_current_notices(notices).get(TERMS, [])
            raise ConsentRequiredError(
                notices=list_references(current),
                agree_at="/api/consents",
                read_at="/api/notices",
            )
