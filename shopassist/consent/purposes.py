"""Apply consent decisions for each purpose; return the current state and the history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shopassist.consent.models import (
    MARKETING,
    TERMS,
    ConsentDecision,
    ConsentEvent,
    ConsentHistoryEntry,
    ConsentProvenance,
    ConsentSource,
    ConsentState,
    ConsentSubject,
    PublishedNotice,
)
from shopassist.consent.notices import get_current_notices, notice_to_reference
from shopassist.consent.ports import ConsentCounters, ConsentRepositories
from shopassist.db.ports import UnitOfWork
from shopassist.errors import NotFoundError, NoticeOutdatedError, NoticeReference, PrivacySignalError

SIGNAL_PURPOSE = MARKETING
"""The purpose that Global Privacy Control says no to."""

RECORD_FIELDS = {TERMS: "terms_accepted", MARKETING: "marketing_consent"}
"""The purposes that the consent record shows, and where."""


@dataclass(frozen=True, slots=True)
class ConsentChoice:
    """A yes or no to a purpose, and the text that was shown."""

    purpose: str
    granted: bool
    notice_id: int | None = None


async def apply_choices(
    work: ConsentRepositories, subject: ConsentSubject, wishes: Sequence[ConsentChoice], origin: ConsentProvenance
) -> tuple[dict[str, ConsentEvent], list[ConsentEvent]]:
    """The state after `wishes`, and those that are news and were appended; a registered user's record says the same.

    The browser's signal, where there is one, comes first. The caller has locked the history of `subject`.
    """
    state = await work.consent_history.get_latest_events(subject)
    events: dict[str, ConsentEvent] = {}
    if origin.privacy_signal and is_granted(state, SIGNAL_PURPOSE):
        events[SIGNAL_PURPOSE] = build_event(
            subject, ConsentChoice(SIGNAL_PURPOSE, granted=False), build_signal_provenance(origin)
        )
    for wish in wishes:
        if is_new_choice({**state, **events}.get(wish.purpose), wish):
            events[wish.purpose] = build_event(subject, wish, origin)
    if not events:
        return state, []
    stored = await work.consent_history.insert_events(list(events.values()))
    flags = {RECORD_FIELDS[event.purpose]: event.granted for event in stored if event.purpose in RECORD_FIELDS}
    if flags and not subject.is_guest:
        await work.consents.update_consent(subject.user_id, **flags)
    return {**state, **{event.purpose: event for event in stored}}, stored


def is_new_choice(event: ConsentEvent | None, wish: ConsentChoice) -> bool:
    """Whether a wish is news: another answer, or the same about another text."""
    if event is None or event.granted != wish.granted:
        return True
    return wish.granted and wish.notice_id is not None and wish.notice_id != event.notice_id


def is_granted(state: Mapping[str, ConsentEvent], purpose: str) -> bool:
    """Whether the purpose is agreed to."""
    return purpose in state and state[purpose].granted


def build_event(subject: ConsentSubject, wish: ConsentChoice, origin: ConsentProvenance) -> ConsentEvent:
    """The event of a wish."""
    return ConsentEvent(
        user_id=subject.user_id,
        is_guest=subject.is_guest,
        purpose=wish.purpose,
        granted=wish.granted,
        notice_id=wish.notice_id,
        source=origin.source.value,
        route=origin.route,
        request_id=origin.request_id,
    )


def build_signal_provenance(origin: ConsentProvenance) -> ConsentProvenance:
    """The origin of what the browser's signal says on the same request."""
    return ConsentProvenance(ConsentSource.PRIVACY_SIGNAL, origin.route, origin.request_id, privacy_signal=True)


def build_state(
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
        notice=find_notice_reference(event, by_id),
        current_version=version,
    )


def find_notice_reference(event: ConsentEvent, by_id: Mapping[int, PublishedNotice]) -> NoticeReference | None:
    """The text that was shown, where that is known."""
    notice = by_id.get(event.notice_id or 0)
    return None if notice is None else notice_to_reference(notice)


class ConsentHistoryService:
    """Decisions of registered users and guests."""

    def __init__(self, unit_of_work: UnitOfWork[ConsentRepositories], counters: ConsentCounters | None = None) -> None:
        """Each decision is one unit of work, counted in `counters`."""
        self._unit_of_work = unit_of_work
        self._counters = counters or ConsentCounters()

    async def decide(
        self, subject: ConsentSubject, decisions: Sequence[ConsentDecision], origin: ConsentProvenance
    ) -> list[ConsentState]:
        """Record decisions, all or none; the state after them.

        Raises `NoticeOutdatedError` for a text that is not the current one of its purpose, `NotFoundError` for a
        purpose that nobody was ever asked about, and, once what the browser's signal says is recorded,
        `PrivacySignalError` for a grant against it.
        """
        against = [
            decision.purpose for decision in decisions if decision.granted and decision.purpose == SIGNAL_PURPOSE
        ]
        if origin.privacy_signal and against:
            await self.apply_privacy_signal(subject, origin)
            raise PrivacySignalError(purposes=against)

        async def body(work: ConsentRepositories) -> tuple[list[ConsentState], list[ConsentEvent]]:
            await work.consent_history.lock(subject)
            notices = await work.notices.list_published()
            wishes = [build_choice(decision, notices) for decision in decisions]
            after, news = await apply_choices(work, subject, wishes, origin)
            return build_states(after, notices), news

        after, news = await self._unit_of_work.run(body, repeatable=True)
        self._counters.count_decisions(news)
        return after

    async def withdraw(self, subject: ConsentSubject, purpose: str, origin: ConsentProvenance) -> ConsentState:
        """Take a purpose back; where it stands after that. Raises `NotFoundError` for one that is unknown."""
        after = await self.decide(subject, [ConsentDecision(purpose=purpose, granted=False)], origin)
        return next(state for state in after if state.purpose == purpose)

    async def get_states(self, subject: ConsentSubject) -> list[ConsentState]:
        """Where each purpose stands, also those that were never decided."""

        async def body(work: ConsentRepositories) -> list[ConsentState]:
            return build_states(
                await work.consent_history.get_latest_events(subject), await work.notices.list_published()
            )

        return await self._unit_of_work.run(body, repeatable=True)

    async def apply_privacy_signal(self, subject: ConsentSubject, origin: ConsentProvenance) -> None:
        """Record what the browser's signal says, if it changes anything."""

        async def body(work: ConsentRepositories) -> list[ConsentEvent]:
            await work.consent_history.lock(subject)
            return (await apply_choices(work, subject, [], origin))[1]

        news = await self._unit_of_work.run(body, repeatable=True)
        self._counters.count_decisions(news)

    async def list_history(
        self, subject: ConsentSubject, limit: int, before_id: int | None = None
    ) -> list[ConsentHistoryEntry]:
        """Grants and withdrawals, newest first; with `before_id` those older than that one."""

        async def body(work: ConsentRepositories) -> list[ConsentHistoryEntry]:
            events = await work.consent_history.list_events(subject, limit, before_id)
            by_id = {notice.id: notice for notice in await work.notices.list_published()}
            return [build_history_entry(event, by_id) for event in events]

        return await self._unit_of_work.run(body, repeatable=True)


def build_choice(decision: ConsentDecision, notices: Sequence[PublishedNotice]) -> ConsentChoice:
    """What is asked for, if it can be. Raises `NotFoundError` and `NoticeOutdatedError`."""
    current = get_current_notices(notices).get(decision.purpose, [])
    if not current and (decision.granted or decision.purpose not in RECORD_FIELDS):
        raise NotFoundError("Nothing was published for this purpose.")
    if decision.notice_id is not None and decision.notice_id not in {notice.id for notice in current}:
        raise NoticeOutdatedError(notices=[notice_to_reference(notice).model_dump() for notice in current])
    return ConsentChoice(decision.purpose, decision.granted, decision.notice_id)


def build_states(events: Mapping[str, ConsentEvent], notices: Sequence[PublishedNotice]) -> list[ConsentState]:
    """Where each purpose stands that somebody was or can be asked about."""
    by_id, current = {notice.id: notice for notice in notices}, get_current_notices(notices)
    versions = {purpose: newest[0].version for purpose, newest in current.items()}
    return [build_state(purpose, events.get(purpose), by_id, versions) for purpose in sorted({*events, *current})]


def build_history_entry(event: ConsentEvent, by_id: Mapping[int, PublishedNotice]) -> ConsentHistoryEntry:
    """An event as its person sees it."""
    public = event.model_dump(exclude={"user_id", "is_guest", "notice_id", "request_id"})
    return ConsentHistoryEntry(**public, notice=find_notice_reference(event, by_id))
