"""Consent decisions: the consent record of registered users, and decisions for each purpose with their history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shopassist.audit.models import AdminAct
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
    UserConsent,
    UserConsentCreate,
    UserConsentUpdate,
    get_current_notices,
    list_references,
)
from shopassist.consent.ports import ConsentCounters, ConsentRepositories
from shopassist.db.ports import ReplicaReads, UnitOfWork
from shopassist.errors import (
    NotFoundError,
    NoticeOutdatedError,
    NoticeReference,
    PrivacySignalError,
    TermsNotAcceptedError,
)
from shopassist.text import validate_user_id

SIGNAL_PURPOSE = MARKETING
"""The purpose that Global Privacy Control turns off."""

RECORD_FIELDS = {TERMS: "terms_accepted", MARKETING: "marketing_consent"}
"""Fields of the consent record, by purpose."""

DEFAULT_PROVENANCE = ConsentProvenance(ConsentSource.RECORD)


@dataclass(frozen=True, slots=True)
class ConsentChoice:
    """Yes or no to a purpose, and the notice that was shown. `by_signal`: the browser's privacy signal decided it."""

    purpose: str
    granted: bool
    notice_id: int | None = None
    by_signal: bool = False


async def lock_latest_events(work: ConsentRepositories, subject: ConsentSubject) -> dict[str, ConsentEvent]:
    """Lock the subject's consent for this transaction and return the newest event of each purpose."""
    await work.consent_history.lock(subject)
    return await work.consent_history.get_latest_events(subject)


async def apply_choices(
    work: ConsentRepositories,
    subject: ConsentSubject,
    latest: Mapping[str, ConsentEvent],
    choices: Sequence[ConsentChoice],
    provenance: ConsentProvenance,
) -> list[ConsentEvent]:
    """Insert an event for each choice that changes something, update the consent record, and return the events.

    `latest` comes from `lock_latest_events` in the same transaction. A privacy signal on the request is applied first.
    """
    if provenance.privacy_signal and is_granted(latest, SIGNAL_PURPOSE):
        choices = [ConsentChoice(SIGNAL_PURPOSE, granted=False, by_signal=True), *choices]
    events: dict[str, ConsentEvent] = {}
    for choice in choices:
        if is_new_choice(events.get(choice.purpose) or latest.get(choice.purpose), choice):
            source = ConsentSource.PRIVACY_SIGNAL if choice.by_signal else provenance.source
            events[choice.purpose] = ConsentEvent(
                user_id=subject.user_id,
                is_guest=subject.is_guest,
                purpose=choice.purpose,
                granted=choice.granted,
                notice_id=choice.notice_id,
                source=source.value,
                route=provenance.route,
                request_id=provenance.request_id,
            )
    if not events:
        return []
    stored = await work.consent_history.insert_events(list(events.values()))
    flags = {RECORD_FIELDS[event.purpose]: event.granted for event in stored if event.purpose in RECORD_FIELDS}
    if flags and not subject.is_guest:
        await work.consents.update_consent(subject.user_id, **flags)
    return stored


def is_new_choice(event: ConsentEvent | None, choice: ConsentChoice) -> bool:
    """Return whether a choice differs from the latest event: another answer, or a grant of another notice."""
    if event is None or event.granted != choice.granted:
        return True
    return choice.granted and choice.notice_id is not None and choice.notice_id != event.notice_id


def is_granted(latest: Mapping[str, ConsentEvent], purpose: str) -> bool:
    """Return whether the latest event of the purpose is a grant."""
    return purpose in latest and latest[purpose].granted


def choose_marketing(wanted: bool, provenance: ConsentProvenance) -> ConsentChoice:
    """Return the choice about marketing, which a privacy signal overrides."""
    return ConsentChoice(MARKETING, wanted and not provenance.privacy_signal, by_signal=provenance.privacy_signal)


class UserConsentService:
    """Creates, reads and updates the consent record of a registered user; there is at most one."""

    def __init__(
        self,
        unit_of_work: UnitOfWork[ConsentRepositories],
        replica_reads: ReplicaReads[ConsentRepositories],
        counters: ConsentCounters,
    ) -> None:
        """List records from `replica_reads`; count decisions in `counters`."""
        self._unit_of_work = unit_of_work
        self._lagging_reads = replica_reads
        self._counters = counters

    async def create_consent(
        self, user_id: str, consent: UserConsentCreate, provenance: ConsentProvenance = DEFAULT_PROVENANCE
    ) -> UserConsent:
        """Create the record. A privacy signal overrides consent to marketing.

        Raises `TermsNotAcceptedError`, and `ConsentExistsError` when there is a record.
        """
        if not consent.terms_accepted:
            raise TermsNotAcceptedError
        marketing = choose_marketing(consent.marketing_consent, provenance)
        subject = ConsentSubject(validate_user_id(user_id), is_guest=False)
        created_at: list[datetime] = []
        """Timestamps of the records that were inserted, whether or not that was committed."""
        new_events: list[ConsentEvent] = []

        async def create(work: ConsentRepositories) -> UserConsent:
            latest = await lock_latest_events(work, subject)
            choices = [ConsentChoice(TERMS, granted=True)]
            # That marketing is off by default is no decision, yet it ends an earlier grant.
            if consent.marketing_consent or is_granted(latest, MARKETING):
                choices.append(marketing)
            new_events[:] = await apply_choices(work, subject, latest, choices, provenance)
            record = UserConsent(user_id=user_id, terms_accepted=True, marketing_consent=marketing.granted)
            created = await work.consents.create_consent(record)
            created_at.append(created.timestamp)
            return created

        async def find_created(work: ConsentRepositories) -> UserConsent | None:
            stored = await work.consents.get_consent(user_id)
            return stored if stored and stored.timestamp in created_at else None

        created = await self._unit_of_work.run(create, find_created)
        self._counters.count_decisions(new_events)
        return created

    async def get_consent(self, user_id: str) -> UserConsent | None:
        """Return the record, or None."""
        validate_user_id(user_id)
        return await self._unit_of_work.run(lambda work: work.consents.get_consent(user_id), repeatable=True)

    async def update_consent(
        self, user_id: str, update: UserConsentUpdate, provenance: ConsentProvenance = DEFAULT_PROVENANCE
    ) -> UserConsent | None:
        """Change the fields that `update` sets and return the record, or None when there is none.

        A privacy signal overrides consent to marketing.
        """
        subject = ConsentSubject(validate_user_id(user_id), is_guest=False)
        if update.marketing_consent is None:
            return await self.get_consent(user_id)
        choice = choose_marketing(update.marketing_consent, provenance)

        async def change(work: ConsentRepositories) -> tuple[UserConsent | None, list[ConsentEvent]]:
            latest = await lock_latest_events(work, subject)
            if await work.consents.get_consent(user_id) is None:
                return None, []
            events = await apply_choices(work, subject, latest, [choice], provenance)
            return await work.consents.get_consent(user_id), events

        record, events = await self._unit_of_work.run(change, repeatable=True)
        self._counters.count_decisions(events)
        return record

    async def list_consents(
        self, limit: int | None = None, after_user_id: str | None = None, act: AdminAct | None = None
    ) -> list[UserConsent]:
        """Return records by user id, after `after_user_id` when it is given.

        `act`, the reader's own, is recorded first: without an audit entry nothing is returned.
        """
        if act is not None:
            await self._unit_of_work.run(lambda work: work.admin_audit.record(act), repeatable=True)
        return await self._lagging_reads.run(lambda work: work.consents.list_consents(limit, after_user_id))


class ConsentHistoryService:
    """Records decisions of registered users and guests for each purpose, and returns their state and history."""

    def __init__(self, unit_of_work: UnitOfWork[ConsentRepositories], counters: ConsentCounters) -> None:
        """Count decisions in `counters`."""
        self._unit_of_work = unit_of_work
        self._counters = counters

    async def decide(
        self, subject: ConsentSubject, decisions: Sequence[ConsentDecision], provenance: ConsentProvenance
    ) -> list[ConsentState]:
        """Record all decisions or none, and return the state of every purpose after them.

        Raises `NoticeOutdatedError` for a notice that is not current, and `NotFoundError` for a purpose without one.
        A grant against a privacy signal raises `PrivacySignalError`, after the signal itself was recorded.
        """
        refused = [
            decision.purpose for decision in decisions if decision.granted and decision.purpose == SIGNAL_PURPOSE
        ]
        if provenance.privacy_signal and refused:
            await self.apply_privacy_signal(subject, provenance)
            raise PrivacySignalError(purposes=refused)

        async def record(work: ConsentRepositories) -> tuple[list[ConsentState], list[ConsentEvent]]:
            latest = await lock_latest_events(work, subject)
            notices = await work.notices.list_published()
            choices = [build_choice(decision, notices) for decision in decisions]
            events = await apply_choices(work, subject, latest, choices, provenance)
            return build_states({**latest, **{event.purpose: event for event in events}}, notices), events

        states, events = await self._unit_of_work.run(record, repeatable=True)
        self._counters.count_decisions(events)
        return states

    async def withdraw(self, subject: ConsentSubject, purpose: str, provenance: ConsentProvenance) -> ConsentState:
        """Withdraw consent to a purpose and return its state. Raises `NotFoundError` for an unknown purpose."""
        states = await self.decide(subject, [ConsentDecision(purpose=purpose, granted=False)], provenance)
        return next(state for state in states if state.purpose == purpose)

    async def get_states(self, subject: ConsentSubject) -> list[ConsentState]:
        """Return the state of every purpose, including those that were never decided."""

        async def read(work: ConsentRepositories) -> list[ConsentState]:
            latest = await work.consent_history.get_latest_events(subject)
            return build_states(latest, await work.notices.list_published())

        return await self._unit_of_work.run(read, repeatable=True)

    async def apply_privacy_signal(self, subject: ConsentSubject, provenance: ConsentProvenance) -> None:
        """Record what the privacy signal of the request withdraws, if it has one and anything is granted."""
        if not provenance.privacy_signal:
            return

        async def record(work: ConsentRepositories) -> list[ConsentEvent]:
            latest = await lock_latest_events(work, subject)
            return await apply_choices(work, subject, latest, [], provenance)

        events = await self._unit_of_work.run(record, repeatable=True)
        self._counters.count_decisions(events)

    async def list_history(
        self, subject: ConsentSubject, limit: int, before_id: int | None = None
    ) -> list[ConsentHistoryEntry]:
        """Return grants and withdrawals, newest first, before the event `before_id` when it is given."""

        async def read(work: ConsentRepositories) -> list[ConsentHistoryEntry]:
            events = await work.consent_history.list_events(subject, limit, before_id)
            by_id = {notice.id: notice for notice in await work.notices.list_published()}
            return [
                ConsentHistoryEntry(
                    **event.model_dump(exclude={"user_id", "is_guest", "notice_id", "request_id"}),
                    notice=find_notice_reference(event, by_id),
                )
                for event in events
            ]

        return await self._unit_of_work.run(read, repeatable=True)


def build_choice(decision: ConsentDecision, notices: Sequence[PublishedNotice]) -> ConsentChoice:
    """Build the choice of a valid decision. Raises `NotFoundError` and `NoticeOutdatedError`."""
    current = get_current_notices(notices).get(decision.purpose, [])
    if not current and (decision.granted or decision.purpose not in RECORD_FIELDS):
        raise NotFoundError("Nothing was published for this purpose.")
    if decision.notice_id is not None and decision.notice_id not in {notice.id for notice in current}:
        raise NoticeOutdatedError(notices=list_references(current))
    return ConsentChoice(decision.purpose, decision.granted, decision.notice_id)


def build_states(latest: Mapping[str, ConsentEvent], notices: Sequence[PublishedNotice]) -> list[ConsentState]:
    """Return the state of every purpose that was decided or has a current notice, by purpose."""
    by_id, current = {notice.id: notice for notice in notices}, get_current_notices(notices)
    states = []
    for purpose in sorted({*latest, *current}):
        state = ConsentState(purpose=purpose, granted=False)
        if purpose in current:
            state.current_version = current[purpose][0].version
        if event := latest.get(purpose):
            state.granted, state.timestamp, state.source = event.granted, event.timestamp, event.source
            state.notice = find_notice_reference(event, by_id)
        states.append(state)
    return states


def find_notice_reference(event: ConsentEvent, by_id: Mapping[int, PublishedNotice]) -> NoticeReference | None:
    """Return the notice that was shown, or None where it is not known."""
    notice = by_id.get(event.notice_id or 0)
    return notice and NoticeReference(**notice.model_dump())
