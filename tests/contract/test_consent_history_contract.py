"""Consent history and state in both storages."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from dependency_injector import providers
from pydantic import ValidationError

from containers import Container
from shopassist.consent.memory import MemoryConsentHistory
from shopassist.consent.models import (
    MARKETING,
    TERMS,
    ConsentDecision,
    ConsentDecisions,
    ConsentEvent,
    ConsentProvenance,
    ConsentSource,
    ConsentState,
    ConsentSubject,
    NoticePublication,
    UserConsentCreate,
    UserConsentUpdate,
)
from shopassist.consent.postgres import PostgresConsentHistory
from shopassist.errors import NotFoundError, NoticeOutdatedError, PrivacySignalError, StorageUnavailableError
from shopassist.settings import Settings, Storage
from tests.support.helpers import FixedClock

USER = ConsentSubject("auth0|123", is_guest=False)
GUEST = ConsentSubject("g2wsht", is_guest=True)
API = ConsentProvenance(ConsentSource.CONSENTS, "POST /api/consents", "request-1")
SIGNAL = ConsentProvenance(ConsentSource.CONSENTS, "POST /api/query", "request-2", privacy_signal=True)


async def publish(container: Container, purpose: str, words: str, locale: str = "en") -> int:
    """Publish a text and return its id."""
    publication = NoticePublication(purpose=purpose, locale=locale, text=words, grace_hours=0)
    return (await container.notice_service().publish(publication, "operator")).id or 0


def yes(purpose: str, notice_id: int) -> ConsentDecision:
    """Return a grant."""
    return ConsentDecision(purpose=purpose, granted=True, notice_id=notice_id)


def no(purpose: str) -> ConsentDecision:
    """Return a withdrawal or refusal."""
    return ConsentDecision(purpose=purpose, granted=False)


def get_granted(states: Sequence[ConsentState]) -> dict[str, bool]:
    """Return whether each purpose is granted."""
    return {state.purpose: state.granted for state in states}


async def list_decisions(container: Container, subject: ConsentSubject = USER) -> list[tuple[str, bool, str]]:
    """Return the history, oldest first: purpose, answer and source."""
    entries = await container.consent_history_service().list_history(subject, 500)
    return [(entry.purpose, entry.granted, entry.source) for entry in reversed(entries)]


@pytest.mark.parametrize("subject", [USER, GUEST])
async def test_a_grant_and_its_withdrawal(container: Container, clock: FixedClock, subject: ConsentSubject) -> None:
    """Each is an event with the text that was shown, when and how; the state follows at once."""
    service = container.consent_history_service()
    terms, marketing = await publish(container, TERMS, "be good"), await publish(container, MARKETING, "mail?")
    before = await service.get_states(subject)
    assert get_granted(before) == {MARKETING: False, TERMS: False}
    assert {state.timestamp for state in before} == {None}
    after = await service.decide(subject, [yes(TERMS, terms), yes(MARKETING, marketing)], API)
    assert after == await service.get_states(subject)
    assert get_granted(after) == {MARKETING: True, TERMS: True}
    notice = after[1].notice
    assert notice
    published = await container.notice_service().get_notice(terms)
    assert (notice.id, notice.version, notice.locale, notice.sha256) == (terms, 1, "en", published.sha256)
    clock.move(hours=1)
    withdrawn = await service.withdraw(subject, MARKETING, API)
    assert (withdrawn.granted, withdrawn.timestamp) == (False, clock.time)
    assert get_granted(await service.get_states(subject)) == {MARKETING: False, TERMS: True}
    newest, *_ = entries = await service.list_history(subject, 10)
    assert [(entry.purpose, entry.granted) for entry in reversed(entries)] == [
        (TERMS, True),
        (MARKETING, True),
        (MARKETING, False),
    ]
    assert (newest.source, newest.route, newest.timestamp) == ("consents", "POST /api/consents", clock.time)


async def test_a_guest_is_never_the_user_of_the_same_id(container: Container) -> None:
    """Neither sees or changes what the other has agreed to."""
    terms = await publish(container, TERMS, "be good")
    service = container.consent_history_service()
    await service.decide(ConsentSubject("same", is_guest=False), [yes(TERMS, terms)], API)
    guest = ConsentSubject("same", is_guest=True)
    assert get_granted(await service.get_states(guest)) == {TERMS: False}
    assert await service.list_history(guest, 10) == []
    await service.withdraw(guest, TERMS, API)
    assert get_granted(await service.get_states(ConsentSubject("same", is_guest=False))) == {TERMS: True}
    assert await container.consent_lookup().get_latest_decision(
        guest, TERMS
    ) != await container.consent_lookup().get_latest_decision(ConsentSubject("same", is_guest=False), TERMS)


async def test_a_repetition_is_no_event(container: Container) -> None:
    """The same answer to the same text is one event, however often and however concurrently it is sent."""
    service = container.consent_history_service()
    terms = await publish(container, TERMS, "be good")
    await asyncio.gather(*[service.decide(USER, [yes(TERMS, terms)], API) for _ in range(12)])
    assert await list_decisions(container) == [(TERMS, True, "consents")]
    await asyncio.gather(*[service.withdraw(USER, TERMS, API) for _ in range(12)])
    assert await list_decisions(container) == [(TERMS, True, "consents"), (TERMS, False, "consents")]


async def test_the_same_answer_to_another_text_is_an_event(container: Container) -> None:
    """Agreeing to a new version is an event, and only the current text can be agreed to."""
    service = container.consent_history_service()
    first = await publish(container, TERMS, "be good")
    await service.decide(USER, [yes(TERMS, first)], API)
    second = await publish(container, TERMS, "be better")
    hindi = (
        await container.notice_service().publish(
            NoticePublication(purpose=TERMS, locale="hi", text="accha", version=2), "operator"
        )
    ).id or 0
    [state] = await service.get_states(USER)
    assert (state.granted, state.notice and state.notice.version, state.current_version) == (True, 1, 2)
    with pytest.raises(NoticeOutdatedError) as refused:
        await service.decide(USER, [yes(TERMS, first)], API)
    assert [notice["id"] for notice in refused.value.extra["notices"]] == [second, hindi]
    await service.decide(USER, [yes(TERMS, second)], API)
    assert [entry.notice and entry.notice.version for entry in await service.list_history(USER, 9)] == [2, 1]


async def test_all_of_a_decision_or_nothing(container: Container) -> None:
    """When one purpose cannot be granted the others are not either."""
    terms = await publish(container, TERMS, "be good")
    for wrong, error in ((yes("profiling", terms), NotFoundError), (yes(MARKETING, 99), NotFoundError)):
        with pytest.raises(error):
            await container.consent_history_service().decide(USER, [yes(TERMS, terms), wrong], API)
    await publish(container, MARKETING, "mail?")
    with pytest.raises(NoticeOutdatedError):  # another purpose's text
        await container.consent_history_service().decide(USER, [yes(TERMS, terms), yes(MARKETING, terms)], API)
    assert await list_decisions(container) == []


async def test_what_nobody_was_asked_cannot_be_withdrawn(container: Container) -> None:
    """A misspelt purpose is refused by name, but marketing and terms can be refused before any text is published."""
    with pytest.raises(NotFoundError):
        await container.consent_history_service().withdraw(USER, "marketting", API)
    assert not (await container.consent_history_service().withdraw(USER, MARKETING, API)).granted
    assert await list_decisions(container) == [(MARKETING, False, "consents")]


@pytest.mark.parametrize(
    "consents",
    [
        [],
        [{"purpose": TERMS}],
        [{"purpose": TERMS, "granted": None}],
        [{"purpose": TERMS, "granted": "true", "notice_id": 1}],
        [{"purpose": TERMS, "granted": 1, "notice_id": 1}],
        [{"purpose": TERMS, "granted": True}],
        [{"granted": True, "notice_id": 1}],
        [{"purpose": TERMS, "granted": True, "notice_id": 0}],
        [{"purpose": TERMS, "granted": False}, {"purpose": TERMS, "granted": False}],
        [{"purpose": "\x00", "granted": False}],
    ],
    ids=str,
)
def test_nothing_is_assumed(consents: object) -> None:
    """A purpose, a yes or no, and for a yes the text: each is said, or the whole is refused."""
    with pytest.raises(ValidationError):
        ConsentDecisions.model_validate({"consents": consents})


async def test_the_old_record_writes_history(container: Container) -> None:
    """Decisions of the first API are in the history without a notice; its defaults stay."""
    service = container.consent_service()
    await service.create_consent(USER.user_id, UserConsentCreate())
    assert await list_decisions(container) == [(TERMS, True, "record")]
    await service.update_consent(USER.user_id, UserConsentUpdate())
    await service.update_consent(USER.user_id, UserConsentUpdate(marketing_consent=True))
    await service.update_consent(USER.user_id, UserConsentUpdate(marketing_consent=True))
    await service.update_consent(USER.user_id, UserConsentUpdate(marketing_consent=False))
    assert await list_decisions(container) == [
        (TERMS, True, "record"),
        (MARKETING, True, "record"),
        (MARKETING, False, "record"),
    ]
    assert await service.update_consent("unknown", UserConsentUpdate(marketing_consent=True)) is None
    assert await list_decisions(container, ConsentSubject("unknown", is_guest=False)) == []


async def test_record_and_history_agree(container: Container) -> None:
    """Both APIs show the same after decisions by either, in any order; the new one creates no record."""
    terms, marketing = await publish(container, TERMS, "be good"), await publish(container, MARKETING, "mail?")
    history, records = container.consent_history_service(), container.consent_service()
    await history.decide(USER, [yes(MARKETING, marketing)], API)
    assert await records.get_consent(USER.user_id) is None
    await records.create_consent(USER.user_id, UserConsentCreate())
    assert await list_decisions(container) == [
        (MARKETING, True, "consents"),
        (TERMS, True, "record"),
        (MARKETING, False, "record"),
    ]
    chance = random.Random(5)  # noqa: S311 - a test's choices
    for _ in range(25):
        step = chance.randrange(5)
        if step == 0:
            await history.decide(USER, [yes(MARKETING, marketing)], API)
        elif step == 1:
            await history.withdraw(USER, chance.choice([TERMS, MARKETING]), API)
        elif step == 2:
            await records.update_consent(USER.user_id, UserConsentUpdate(marketing_consent=chance.random() < 0.5))
        elif step == 3:
            await history.apply_privacy_signal(USER, SIGNAL)
        else:
            await history.decide(USER, [no(MARKETING), yes(TERMS, terms)], API)
        record = await records.get_consent(USER.user_id)
        assert record
        assert get_granted(await history.get_states(USER)) == {
            TERMS: record.terms_accepted,
            MARKETING: record.marketing_consent,
        }


@pytest.mark.parametrize("act", ["create", "update", "decide"])
async def test_record_and_history_are_written_together(container: Container, settings: Settings, act: str) -> None:
    """When the event cannot be written, the record does not change."""
    service = container.consent_service()
    if act != "create":
        await service.create_consent(USER.user_id, UserConsentCreate())
    before = await service.get_consent(USER.user_id), await list_decisions(container)

    class BrokenInMemory(MemoryConsentHistory):
        async def insert_events(self, _: Sequence[ConsentEvent]) -> list[ConsentEvent]:
            raise StorageUnavailableError

    class BrokenInPostgres(PostgresConsentHistory):
        async def insert_events(self, _: Sequence[ConsentEvent]) -> list[ConsentEvent]:
            raise StorageUnavailableError

    in_memory = settings.storage.storage is Storage.MEMORY
    broken = BrokenInMemory if in_memory else BrokenInPostgres
    arguments = {} if in_memory else {"clock": container.clock}
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: container.consent_service().create_consent(USER.user_id, UserConsentCreate()),
        "update": lambda: container.consent_service().update_consent(
            USER.user_id, UserConsentUpdate(marketing_consent=True)
        ),
        "decide": lambda: container.consent_history_service().decide(USER, [no(TERMS), no(MARKETING)], API),
    }
    replaced: Any = container.storage().consent_history_repository.override(providers.Factory(broken, **arguments))
    with replaced, pytest.raises(StorageUnavailableError):
        await acts[act]()
    assert (await service.get_consent(USER.user_id), await list_decisions(container)) == before


@pytest.mark.parametrize("subject", [USER, GUEST])
async def test_the_signal_turns_marketing_off_once(container: Container, subject: ConsentSubject) -> None:
    """One event with the signal as its source, and none when nothing was granted."""
    service = container.consent_history_service()
    await service.apply_privacy_signal(subject, SIGNAL)
    assert await list_decisions(container, subject) == []
    terms, marketing = await publish(container, TERMS, "be good"), await publish(container, MARKETING, "mail?")
    await service.decide(subject, [yes(TERMS, terms), yes(MARKETING, marketing)], API)
    await asyncio.gather(*[service.apply_privacy_signal(subject, SIGNAL) for _ in range(8)])
    assert (await list_decisions(container, subject))[2:] == [(MARKETING, False, "privacy_signal")]
    assert (await service.list_history(subject, 1))[0].route == "POST /api/query"
    assert get_granted(await service.get_states(subject)) == {MARKETING: False, TERMS: True}


async def test_a_grant_against_the_signal_is_refused(container: Container) -> None:
    """Only the signal is recorded; a withdrawal together with the signal is one event."""
    service = container.consent_history_service()
    terms, marketing = await publish(container, TERMS, "be good"), await publish(container, MARKETING, "mail?")
    await service.decide(USER, [yes(MARKETING, marketing)], API)
    with pytest.raises(PrivacySignalError):
        await service.decide(USER, [yes(TERMS, terms), yes(MARKETING, marketing)], SIGNAL)
    assert (await list_decisions(container))[1:] == [(MARKETING, False, "privacy_signal")]
    assert get_granted(await service.decide(USER, [yes(TERMS, terms)], SIGNAL)) == {MARKETING: False, TERMS: True}
    await service.decide(USER, [yes(MARKETING, marketing)], API)
    await service.decide(USER, [no(MARKETING)], SIGNAL)
    assert (await list_decisions(container))[4:] == [(MARKETING, False, "privacy_signal")]


async def test_the_signal_overrides_the_record(container: Container) -> None:
    """The route still answers, with marketing off, and the history has the source."""
    service = container.consent_service()
    record = await service.create_consent(USER.user_id, UserConsentCreate(marketing_consent=True), SIGNAL)
    assert not record.marketing_consent
    assert await list_decisions(container) == [(TERMS, True, "consents"), (MARKETING, False, "privacy_signal")]
    updated = await service.update_consent(USER.user_id, UserConsentUpdate(marketing_consent=True), SIGNAL)
    assert updated
    assert not updated.marketing_consent


async def test_history_in_pages(container: Container) -> None:
    """Events are newest first, and pages by cursor contain all of them."""
    for _ in range(5):
        marketing = await publish(container, MARKETING, f"mail? {_}")
        await container.consent_history_service().decide(USER, [yes(MARKETING, marketing)], API)
    first = await container.consent_history_service().list_history(USER, 3)
    second = await container.consent_history_service().list_history(USER, 3, before_id=first[-1].id)
    versions = [entry.notice and entry.notice.version for entry in (*first, *second)]
    assert versions == [5, 4, 3, 2, 1]
