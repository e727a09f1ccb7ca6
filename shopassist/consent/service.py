"""The consent record of registered users: terms and marketing."""

from datetime import datetime

from shopassist.audit.models import AdminAct
from shopassist.consent.models import (
    MARKETING,
    TERMS,
    ConsentEvent,
    ConsentProvenance,
    ConsentSource,
    ConsentSubject,
    UserConsent,
    UserConsentCreate,
    UserConsentUpdate,
)
from shopassist.consent.ports import ConsentCounters, ConsentRepositories
from shopassist.consent.purposes import ConsentChoice, build_event, build_signal_provenance, is_granted, is_new_choice
from shopassist.db.ports import ReplicaReads, UnitOfWork
from shopassist.errors import TermsNotAcceptedError
from shopassist.text import validate_user_id

DEFAULT_PROVENANCE = ConsentProvenance(ConsentSource.RECORD)


class UserConsentService:
    """One record a user, created once."""

    def __init__(
        self,
        unit_of_work: UnitOfWork[ConsentRepositories],
        lagging_reads: ReplicaReads[ConsentRepositories] | None = None,
        counters: ConsentCounters | None = None,
    ) -> None:
        """Records are kept by `unit_of_work`, which stamps them; `lagging_reads` lists them, or else it does.

        Decisions are counted in `counters`.
        """
        self._counters = counters or ConsentCounters()
        self._lagging_reads = lagging_reads or unit_of_work
        self._unit_of_work = unit_of_work

    async def create_consent(
        self, user_id: str, consent: UserConsentCreate, origin: ConsentProvenance = DEFAULT_PROVENANCE
    ) -> UserConsent:
        """Record an agreement; a browser's privacy signal overrules one to marketing.

        Raises `TermsNotAcceptedError`, and `ConsentExistsError` when there is a record.
        """
        if not consent.terms_accepted:
            raise TermsNotAcceptedError
        wants_marketing = consent.marketing_consent and not origin.privacy_signal
        subject = ConsentSubject(validate_user_id(user_id), is_guest=False)
        stamps: list[datetime] = []
        """What the database stamped the record with, whether or not that was committed."""
        news: list[ConsentEvent] = []

        async def create(work: ConsentRepositories) -> UserConsent:
            await work.consent_history.lock(subject)
            record = UserConsent(user_id=user_id, terms_accepted=True, marketing_consent=wants_marketing)
            created = await work.consents.create_consent(record)
            stamps.append(created.timestamp)
            state = await work.consent_history.get_latest_events(subject)
            events: list[ConsentEvent] = []
            if is_new_choice(state.get(TERMS), ConsentChoice(TERMS, granted=True)):
                events.append(build_event(subject, ConsentChoice(TERMS, granted=True), origin))
            # That marketing is off by default is no decision, yet it ends one that was made before.
            if consent.marketing_consent or is_granted(state, MARKETING):
                events += build_marketing_events(subject, state.get(MARKETING), wants_marketing, origin)
            if events:
                await work.consent_history.insert_events(events)
            news[:] = events
            return created

        async def recorded(work: ConsentRepositories) -> UserConsent | None:
            stored = await work.consents.get_consent(user_id)
            return stored if stored and stored.timestamp in stamps else None

        created = await self._unit_of_work.run(create, recorded)
        self._counters.count_decisions(news)
        return created

    async def get_consent(self, user_id: str) -> UserConsent | None:
        """The record, or None."""
        validate_user_id(user_id)
        return await self._unit_of_work.run(lambda work: work.consents.get_consent(user_id), repeatable=True)

    async def update_consent(
        self, user_id: str, update: UserConsentUpdate, origin: ConsentProvenance = DEFAULT_PROVENANCE
    ) -> UserConsent | None:
        """Change what `update` sets, or, where it sets nothing, write nothing. None when there is no record.

        A browser's privacy signal overrules a yes to marketing.
        """
        subject = ConsentSubject(validate_user_id(user_id), is_guest=False)
        wanted = update.marketing_consent
        if wanted is None:
            return await self.get_consent(user_id)
        granted = wanted and not origin.privacy_signal

        async def change(work: ConsentRepositories) -> tuple[UserConsent | None, list[ConsentEvent]]:
            await work.consent_history.lock(subject)
            record = await work.consents.update_consent(user_id, marketing_consent=granted)
            if record is None:
                return None, []
            state = await work.consent_history.get_latest_events(subject)
            events = build_marketing_events(subject, state.get(MARKETING), granted, origin)
            if events:
                await work.consent_history.insert_events(events)
            return record, events

        record, news = await self._unit_of_work.run(change, repeatable=True)
        self._counters.count_decisions(news)
        return record

    async def list_consents(
        self, limit: int | None = None, after_user_id: str | None = None, act: AdminAct | None = None
    ) -> list[UserConsent]:
        """Records by user id; with `after_user_id` those behind it.

        `act`, of whoever looks, goes to the audit first: without it nothing is shown.
        """
        if act is not None:
            await self._unit_of_work.run(lambda work: work.admin_audit.record(act), repeatable=True)
        return await self._lagging_reads.run(lambda work: work.consents.list_consents(limit, after_user_id))


def build_marketing_events(
    subject: ConsentSubject, before: ConsentEvent | None, granted: bool, origin: ConsentProvenance
) -> list[ConsentEvent]:
    """The event of a decision about marketing, if it is news; a signal that overruled it is named as its source."""
    wish = ConsentChoice(MARKETING, granted)
    if not is_new_choice(before, wish):
        return []
    return [build_event(subject, wish, build_signal_provenance(origin) if origin.privacy_signal else origin)]
