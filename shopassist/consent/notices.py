"""Publish notices and select the current ones."""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from shopassist.audit.models import PUBLISH_NOTICE, AdminAct
from shopassist.consent.models import ConsentNotice, NoticePublication, PublishedNotice, compute_sha256
from shopassist.consent.ports import ConsentRepositories
from shopassist.db.columns import utc_now
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError, NotFoundError, NoticeExistsError, NoticeReference


def notice_to_reference(notice: PublishedNotice) -> NoticeReference:
    """Return the reference of a notice."""
    return NoticeReference(**notice.model_dump(include=set(NoticeReference.model_fields)))


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
                    return await _get_identical_notice(work, other, notice)
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
        chosen = [
            select_by_locale(notices, locales).id
            for notices in get_current_notices(await self._published.get()).values()
        ]
        return (
            await self._unit_of_work.run(lambda work: work.notices.get_notices(chosen), repeatable=True)
            if chosen
            else []
        )

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


async def _get_identical_notice(
    work: ConsentRepositories, existing: PublishedNotice, notice: ConsentNotice
) -> ConsentNotice:
    stored = await work.notices.get_notice(existing.id)
    if stored is None or stored.sha256 != notice.sha256:
        raise NoticeExistsError
    return stored


def get_current_notices(notices: Iterable[PublishedNotice]) -> dict[str, list[PublishedNotice]]:
    """Return the newest version of each purpose in all its languages, the first published first."""
    found: dict[str, list[PublishedNotice]] = {}
    for notice in notices:
        others = found.setdefault(notice.purpose, [])
        if others and others[0].version < notice.version:
            others.clear()
        others.append(notice)
    return found


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
