"""`UserConsentService` in both storages."""

import pytest

from containers import Container
from shopassist.consent.models import UserConsent, UserConsentCreate, UserConsentUpdate
from shopassist.errors import ConsentExistsError, IntegrityError, TermsNotAcceptedError
from tests.support.helpers import FixedClock

USER = "auth0|123"


async def test_defaults(container: Container, clock: FixedClock) -> None:
    """Terms are accepted and marketing is not, unless said otherwise."""
    consent = await container.consent_service().create_consent(USER, UserConsentCreate())
    assert (consent.user_id, consent.terms_accepted, consent.marketing_consent) == (USER, True, False)
    assert consent.timestamp == clock.time
    assert await container.consent_service().get_consent(USER) == consent


async def test_a_second_record_is_an_integrity_error(container: Container) -> None:
    """One record a user; the first one stays."""
    service = container.consent_service()
    await service.create_consent(USER, UserConsentCreate(marketing_consent=True))
    with pytest.raises(ConsentExistsError) as caught:
        await service.create_consent(USER, UserConsentCreate())
    assert isinstance(caught.value, IntegrityError)
    consent = await service.get_consent(USER)
    assert consent
    assert consent.marketing_consent


async def test_terms_must_be_accepted(container: Container) -> None:
    """Without acceptance no record is created."""
    with pytest.raises(TermsNotAcceptedError):
        await container.consent_service().create_consent(USER, UserConsentCreate(terms_accepted=False))
    assert await container.consent_service().get_consent(USER) is None


async def test_update_changes_marketing_alone(container: Container, clock: FixedClock) -> None:
    """The timestamp of the agreement stays when marketing consent changes."""
    service = container.consent_service()
    created = await service.create_consent(USER, UserConsentCreate())
    clock.move(hours=1)
    updated = await service.update_consent(USER, UserConsentUpdate(marketing_consent=True))
    assert updated
    assert (updated.marketing_consent, updated.timestamp, updated.updated_at) == (True, created.timestamp, clock.time)


async def test_an_empty_update_writes_nothing(container: Container, clock: FixedClock) -> None:
    """The time of the last change stays the same."""
    service = container.consent_service()
    created = await service.create_consent(USER, UserConsentCreate())
    clock.move(hours=1)
    assert await service.update_consent(USER, UserConsentUpdate()) == created


async def test_update_and_get_without_a_record(container: Container) -> None:
    """Without a record both return None."""
    service = container.consent_service()
    assert await service.update_consent("unknown", UserConsentUpdate(marketing_consent=True)) is None
    assert await service.get_consent("unknown") is None


async def test_list_in_pages(container: Container) -> None:
    """Records are ordered by user id, and pages by cursor contain all of them."""
    service = container.consent_service()
    for user_id in ("c", "a", "d", "b"):
        await service.create_consent(user_id, UserConsentCreate())
    assert [consent.user_id for consent in await service.list_consents()] == ["a", "b", "c", "d"]
    page = await service.list_consents(limit=2, after_user_id="b")
    assert [consent.user_id for consent in page] == ["c", "d"]


async def test_a_failed_unit_of_work_is_rolled_back(container: Container) -> None:
    """A failure rolls back earlier writes."""

    async def fail_half_way() -> None:
        async with container.unit_of_work()() as work:
            await work.consents.create_consent(UserConsent(user_id="half"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_half_way()
    assert await container.consent_service().get_consent("half") is None
