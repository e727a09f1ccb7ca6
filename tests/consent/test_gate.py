"""Database reads of the consent gate."""

import pytest
from dependency_injector import providers

from containers import Container
from shopassist.consent.memory import MemoryConsentLookup
from shopassist.consent.models import (
    MARKETING,
    TERMS,
    ConsentDecision,
    ConsentProvenance,
    ConsentSource,
    ConsentSubject,
    LatestDecision,
    NoticePublication,
    PublishedNotice,
)
from shopassist.consent.notices import ConsentGate, PublishedNoticeCache
from shopassist.db.memory import MemoryStore
from shopassist.errors import ConsentRequiredError, StorageUnavailableError
from shopassist.settings import Settings, Storage, StorageSettings

GUEST = ConsentSubject("g2wsht", is_guest=True)
PLAIN = ConsentProvenance(ConsentSource.CONSENTS, "POST /api/query")
SIGNAL = ConsentProvenance(ConsentSource.CONSENTS, "POST /api/query", privacy_signal=True)


class CountingLookup(MemoryConsentLookup):
    """Consent lookup that counts reads, and that can be made unavailable."""

    is_away = False

    def __init__(self, store: MemoryStore) -> None:
        """Start without reads."""
        super().__init__(store)
        self.asked: list[str] = []

    async def list_published(self) -> list[PublishedNotice]:
        self._count("notices")
        return await super().list_published()

    async def get_latest_decision(self, subject: ConsentSubject, purpose: str) -> LatestDecision | None:
        self._count(purpose)
        return await super().get_latest_decision(subject, purpose)

    def _count(self, what: str) -> None:
        self.asked.append(what)
        if self.is_away:
            raise StorageUnavailableError


class Setting:
    """Gate over memory storage, with its own clock."""

    def __init__(self, required: bool) -> None:
        """Build the gate."""
        self.now = 1000.0
        settings = Settings(storage=StorageSettings(storage=Storage.MEMORY))
        self.container = Container(settings=settings)
        self.lookup = CountingLookup(self.container.memory_store())
        self.container.consent_lookup.override(providers.Object(self.lookup))
        published = PublishedNoticeCache(self.lookup.list_published, lambda: self.now)
        history = self.container.consent_history_service()
        self.gate = ConsentGate(self.lookup, published, history, required, lambda: self.now)

    async def publish(self, purpose: str) -> int:
        """Publish a text and return its id."""
        publication = NoticePublication(purpose=purpose, locale="en", text="Be good.")
        return (await self.container.notice_service().publish(publication, "operator")).id or 0

    async def grant(self, purpose: str, notice_id: int) -> None:
        """Grant the purpose as the guest."""
        decision = ConsentDecision(purpose=purpose, granted=True, notice_id=notice_id)
        await self.container.consent_history_service().decide(GUEST, [decision], PLAIN)


@pytest.fixture(params=[False])
def setting(request: pytest.FixtureRequest) -> Setting:
    """Return a gate."""
    return Setting(request.param)


requiring = pytest.mark.parametrize("setting", [True], indirect=True)


async def test_without_requirement_and_signal_nothing_is_read(setting: Setting) -> None:
    """Without a requirement and a signal nothing is read."""
    for _ in range(5):
        await setting.gate.check(GUEST, PLAIN)
    assert setting.lookup.asked == []


async def test_an_unchanged_signal_is_checked_once_a_minute(setting: Setting) -> None:
    """Browsers send the signal with every request; after a new decision it is checked again at once."""
    for _ in range(5):
        await setting.gate.check(GUEST, SIGNAL)
    assert setting.lookup.asked == [MARKETING]
    setting.now += 61
    await setting.gate.check(GUEST, SIGNAL)
    assert len(setting.lookup.asked) == 2
    setting.gate.forget_signal(GUEST)
    await setting.grant(MARKETING, await setting.publish(MARKETING))
    await setting.gate.check(GUEST, SIGNAL)
    assert len(setting.lookup.asked) == 3
    [state] = await setting.container.consent_history_service().get_states(GUEST)
    assert (state.granted, state.source) == (False, "privacy_signal")


async def test_a_signal_while_the_database_is_down_does_not_refuse(setting: Setting) -> None:
    """The signal is checked again with the next request."""
    setting.lookup.is_away = True
    await setting.gate.check(GUEST, SIGNAL)
    await setting.gate.check(GUEST, SIGNAL)
    assert len(setting.lookup.asked) == 2


@requiring
async def test_an_agreement_is_read_for_each_question_and_notices_every_two_seconds(setting: Setting) -> None:
    """Therefore a withdrawal takes effect at once."""
    await setting.grant(TERMS, await setting.publish(TERMS))
    for _ in range(3):
        await setting.gate.check(GUEST, PLAIN)
    assert setting.lookup.asked == ["notices", TERMS, TERMS, TERMS]
    setting.now += 2
    await setting.gate.check(GUEST, PLAIN)
    assert setting.lookup.asked[4:] == ["notices", TERMS]
    await setting.container.consent_history_service().withdraw(GUEST, TERMS, PLAIN)
    with pytest.raises(ConsentRequiredError):
        await setting.gate.check(GUEST, PLAIN)


@requiring
async def test_consent_that_cannot_be_read_is_not_assumed(setting: Setting) -> None:
    """While the database is down every caller is refused, even after an earlier success."""
    await setting.grant(TERMS, await setting.publish(TERMS))
    await setting.gate.check(GUEST, PLAIN)
    setting.lookup.is_away = True
    with pytest.raises(StorageUnavailableError):
        await setting.gate.check(GUEST, PLAIN)
