"""Publish notices and select the current ones."""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from shopassist.audit.models import PUBLISH_NOTICE, AdminAct
from shopassist.consent.models import ConsentNotice, NoticePublication, PublishedNotice, sha256_hex
from shopassist.consent.ports import ConsentRepositories
from shopassist.db.columns import utc_now
from shopassist.db.ports import UnitOfWork
from shopassist.errors import InvalidInputError, NotFoundError, NoticeExistsError, NoticeReference


def notice_to_reference(notice: PublishedNotice) -> NoticeReference:
    """Which text, without its words."""
    return NoticeReference(**notice.model_dump(include=set(NoticeReference.model_fields)))


PUBLISHED_TTL_SECONDS = 2.0
"""How old a process's knowledge of what is published may be."""


class PublishedNoticeCache:
    """What is published, as this process knows it; texts are not kept."""

    def __init__(
        self,
        read: Callable[[], Awaitable[list[PublishedNotice]]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` asks the database."""
        self._read = read
        self._monotonic = monotonic
        self._notices: list[PublishedNotice] = []
        self._fresh_until = float("-inf")
        self._asking = False

    async def get(self) -> list[PublishedNotice]:
        """By purpose, version and id, at most `FRESH_SECONDS` old. Raises `StorageUnavailableError`.

        While one caller asks the database others make do with what was known, and not each asks as well.
        """
        asked_at = self._monotonic()
        if asked_at < self._fresh_until or (self._asking and self._notices):
            return self._notices
        self._asking = True
        try:
            self._notices = await self._read()
        finally:
            self._asking = False
        self._fresh_until = asked_at + PUBLISHED_TTL_SECONDS
        return self._notices

    def invalidate(self) -> None:
        """Ask the database the next time."""
        self._fresh_until = float("-inf")


class NoticeService:
    """Publishes notices and finds them."""

    def __init__(
        self, unit_of_work: UnitOfWork[ConsentRepositories], published: PublishedNoticeCache, grace_hours: float
    ) -> None:
        """`grace_hours` is how long a new version may be put off unless its publisher says."""
        self._unit_of_work = unit_of_work
        self._published = published
        self._grace_hours = grace_hours

    async def publish(
        self, publication: NoticePublication, actor: str, reason: str | None = None, request_id: str | None = None
    ) -> ConsentNotice:
        """Publish a text for good; the act goes to the audit with it. The same again changes nothing.

        Raises `InvalidInputError` for a version that is neither the newest nor the next, or a next one whose text the
        newest has, and `NoticeExistsError` when the version has another text in this language.
        """

        async def body(work: ConsentRepositories) -> ConsentNotice:
            await work.notices.lock()
            same_purpose = [
                notice for notice in await work.notices.list_published() if notice.purpose == publication.purpose
            ]
            notice = build_notice(publication, same_purpose)
            there = [other for other in same_purpose if get_version_and_locale(other) == get_version_and_locale(notice)]
            if there:
                return await _get_identical_notice(work, there[0], notice)
            # The first version binds at once: nobody has agreed to one before it.
            grace = self._grace_hours if publication.grace_hours is None else publication.grace_hours
            stored = await work.notices.insert_notice(notice, grace if notice.version > 1 else 0)
            target = f"{notice.purpose} {notice.version} {notice.locale}"
            await work.admin_audit.record(
                AdminAct(actor=actor, act=PUBLISH_NOTICE, target=target, reason=reason, request_id=request_id)
            )
            return stored

        notice = await self._unit_of_work.run(body, repeatable=True)
        self._published.invalidate()
        return notice

    async def list_notices(self) -> list[PublishedNotice]:
        """Every notice without its text, by purpose, version and id."""
        return await self._unit_of_work.run(lambda work: work.notices.list_published(), repeatable=True)

    async def get_current(self, locales: Sequence[str]) -> list[ConsentNotice]:
        """The newest text for each purpose, in the first of `locales` that it has or else its first language."""
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
        """One text, whether current or not. Raises `NotFoundError`."""
        notice = await self._unit_of_work.run(lambda work: work.notices.get_notice(notice_id), repeatable=True)
        if notice is None:
            raise NotFoundError("There is no such notice.")
        return notice


def build_notice(publication: NoticePublication, published: Sequence[PublishedNotice]) -> ConsentNotice:
    """The notice to store, beside those of its purpose. Raises `InvalidInputError`."""
    newest = max((notice.version for notice in published), default=0)
    digest = sha256_hex(publication.text)
    is_known = digest in {notice.sha256 for notice in published if notice.version == newest}
    version = publication.version or (newest if is_known else newest + 1)
    if version not in {newest, newest + 1}:
        raise InvalidInputError(f"version must be {newest + 1}, or {newest} for a translation; not {version}.")
    if version > newest and is_known:
        raise InvalidInputError(f"Version {newest} has this very text: nobody needs to be asked again.")
    return ConsentNotice(
        purpose=publication.purpose,
        version=version,
        locale=publication.locale,
        sha256=digest,
        text=publication.text,
        binding_from=utc_now(),
    )


def get_version_and_locale(notice: ConsentNotice | PublishedNotice) -> tuple[int, str]:
    """What a purpose has one text for."""
    return notice.version, notice.locale


async def _get_identical_notice(
    work: ConsentRepositories, there: PublishedNotice, wanted: ConsentNotice
) -> ConsentNotice:
    stored = await work.notices.get_notice(there.id)
    if stored is None or stored.sha256 != wanted.sha256:
        raise NoticeExistsError
    return stored


def get_current_notices(notices: Iterable[PublishedNotice]) -> dict[str, list[PublishedNotice]]:
    """The newest version of each purpose in all its languages, the first published first."""
    found: dict[str, list[PublishedNotice]] = {}
    for notice in notices:
        others = found.setdefault(notice.purpose, [])
        if others and others[0].version < notice.version:
            others.clear()
        others.append(notice)
    return found


def select_by_locale(notices: Sequence[PublishedNotice], locales: Sequence[str]) -> PublishedNotice:
    """The one in the language that is wanted most: `hi` does for `hi-IN`, and any `hi-…` for `hi`."""
    for locale in locales:
        wanted = locale.lower()
        while wanted:
            for notice in notices:
                if notice.locale.lower() == wanted:
                    return notice
            wanted = wanted.rpartition("-")[0]
        for notice in notices:
            if notice.locale.lower().startswith(f"{locale.lower()}-"):
                return notice
    return notices[0]
