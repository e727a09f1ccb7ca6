"""What people have agreed to, purpose by purpose: deciding, where it stands, and how it came about."""

from collections.abc import Mapping, Sequence

from shopassist.db.ports import Repositories, UnitOfWork
from shopassist.errors import NotFoundError, NoticeOutdatedError, PrivacySignalError
from shopassist.models import ConsentEvent
from shopassist.models.consent_history import (
    ConsentDecision,
    ConsentHistoryEntry,
    ConsentState,
    Origin,
    Subject,
)
from shopassist.models.notice import NoticeReference, PublishedNotice
from shopassist.models.privacy_figures import PrivacyFigures
from shopassist.services.consent_changes import RECORDED, SIGNALLED, Wish, changed
from shopassist.services.notices import current_of


class ConsentHistoryService:
    """Decisions of registered users and guests."""

    def __init__(self, unit_of_work: UnitOfWork, figures: PrivacyFigures | None = None) -> None:
        """Each decision is one unit of work, counted in `figures`."""
        self._unit_of_work = unit_of_work
        self._figures = figures or PrivacyFigures()

    async def decide(
        self, subject: Subject, decisions: Sequence[ConsentDecision], origin: Origin
    ) -> list[ConsentState]:
        """Record decisions, all or none; the state after them.

        Raises `NoticeOutdatedError` for a text that is not the current one of its purpose, `NotFoundError` for a
        purpose that nobody was ever asked about, and, once what the browser's signal says is recorded,
        `PrivacySignalError` for a grant against it.
        """
        against = [decision.purpose for decision in decisions if decision.granted and decision.purpose == SIGNALLED]
        if origin.privacy_signal and against:
            await self.heed_signal(subject, origin)
            raise PrivacySignalError(purposes=against)

        async def body(work: Repositories) -> tuple[list[ConsentState], list[ConsentEvent]]:
            notices = await work.notices.all()
            wishes = [wish_of(decision, notices) for decision in decisions]
            after, news = await changed(work, subject, wishes, origin)
            return states(after, notices), news

        after, news = await self._unit_of_work.about(subject.user_id).run(body, repeatable=True)
        self._figures.decided(news)
        return after

    async def withdraw(self, subject: Subject, purpose: str, origin: Origin) -> ConsentState:
        """Take a purpose back; where it stands after that. Raises `NotFoundError` for one that is unknown."""
        after = await self.decide(subject, [ConsentDecision(purpose=purpose, granted=False)], origin)
        return next(state for state in after if state.purpose == purpose)

    async def state(self, subject: Subject) -> list[ConsentState]:
        """Where each purpose stands, also those that were never decided."""

        async def body(work: Repositories) -> list[ConsentState]:
            return states(await work.consent_history.state(subject), await work.notices.all())

        return await self._unit_of_work.about(subject.user_id).run(body, repeatable=True)

    async def heed_signal(self, subject: Subject, origin: Origin) -> None:
        """Record what the browser's signal says, if it changes anything."""
        _, news = await self._unit_of_work.about(subject.user_id).run(
            lambda work: changed(work, subject, [], origin), repeatable=True
        )
        self._figures.decided(news)

    async def history(self, subject: Subject, limit: int, before_id: int | None = None) -> list[ConsentHistoryEntry]:
        """Grants and withdrawals, newest first; with `before_id` those older than that one."""

        async def body(work: Repositories) -> list[ConsentHistoryEntry]:
            events = await work.consent_history.page(subject, limit, before_id)
            by_id = {notice.id: notice for notice in await work.notices.all()}
            return [entry_of(event, by_id) for event in events]

        return await self._unit_of_work.about(subject.user_id).run(body, repeatable=True)


def wish_of(decision: ConsentDecision, notices: Sequence[PublishedNotice]) -> Wish:
    """What is asked for, if it can be. Raises `NotFoundError` and `NoticeOutdatedError`."""
    current = current_of(notices).get(decision.purpose, [])
    if not current and (decision.granted or decision.purpose not in RECORDED):
        raise NotFoundError("Nothing was published for this purpose.")
    if decision.notice_id is not None and decision.notice_id not in {notice.id for notice in current}:
        raise NoticeOutdatedError(notices=[reference(notice).model_dump() for notice in current])
    return Wish(decision.purpose, decision.granted, decision.notice_id)


def states(events: Mapping[str, ConsentEvent], notices: Sequence[PublishedNotice]) -> list[ConsentState]:
    """Where each purpose stands that somebody was or can be asked about."""
    by_id, current = {notice.id: notice for notice in notices}, current_of(notices)
    versions = {purpose: newest[0].version for purpose, newest in current.items()}
    return [state_of(purpose, events.get(purpose), by_id, versions) for purpose in sorted({*events, *current})]


def state_of(
    purpose: str, event: ConsentEvent | None, by_id: Mapping[int, PublishedNotice], versions: Mapping[str, int]
) -> ConsentState:
    """Where a purpose stands by its newest event."""
    version = versions.get(purpose)
    if event is None:
        return ConsentState(purpose=purpose, granted=False, current_version=version)
    return ConsentState(
        purpose=purpose,
        granted=event.granted,
        timestamp=event.timestamp,
        source=event.source,
        notice=shown(event, by_id),
        current_version=version,
    )


def entry_of(event: ConsentEvent, by_id: Mapping[int, PublishedNotice]) -> ConsentHistoryEntry:
    """An event as its person sees it."""
    public = event.model_dump(exclude={"user_id", "is_guest", "notice_id", "request_id"})
    return ConsentHistoryEntry(**public, notice=shown(event, by_id))


def shown(event: ConsentEvent, by_id: Mapping[int, PublishedNotice]) -> NoticeReference | None:
    """The text that was shown, where that is known."""
    notice = by_id.get(event.notice_id or 0)
    return None if notice is None else reference(notice)


def reference(notice: PublishedNotice) -> NoticeReference:
    """Which text, without its words."""
    return NoticeReference(**notice.model_dump(include=set(NoticeReference.model_fields)))
