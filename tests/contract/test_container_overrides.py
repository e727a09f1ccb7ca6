"""Replacing a part of the container replaces it everywhere: the three examples of CONTRIBUTING."""

import pytest
from dependency_injector import providers

from containers import Container
from shopassist.consent.memory import MemoryConsentRepository
from shopassist.consent.models import UserConsent, UserConsentCreate
from shopassist.credits.service import CreditService
from shopassist.errors import StorageUnavailableError
from shopassist.settings import Settings, Storage, StorageSettings
from tests.support.helpers import FixedClock, postgres_settings


@pytest.fixture
def memory() -> Container:
    """Build a container that keeps everything in memory."""
    return Container(settings=Settings(storage=StorageSettings(storage=Storage.MEMORY)))


async def test_a_service(memory: Container) -> None:
    """All users of the service get the replacement."""

    class FreeCredits(CreditService):
        async def deduct_credit(self, user_id: str, is_guest: bool = False, amount: int = 1) -> bool:
            return True

    memory.credit_service.override(
        providers.Factory(FreeCredits, memory.credit_ledger, memory.unit_of_work, memory.credit_policy)
    )
    assert await memory.credit_service().deduct_credit("a", amount=1000)


async def test_a_repository(memory: Container) -> None:
    """The unit of work builds the replacement."""

    class BrokenConsents(MemoryConsentRepository):
        async def create_consent(self, consent: UserConsent) -> UserConsent:
            raise StorageUnavailableError

    memory.storage().consent_repository.override(providers.Factory(BrokenConsents))
    with pytest.raises(StorageUnavailableError):
        await memory.consent_service().create_consent("a", UserConsentCreate())


async def test_the_clock(memory: Container) -> None:
    """A day later, without waiting for it, the reset is due."""
    clock = FixedClock()
    memory.clock.override(clock)
    service = memory.credit_service()
    await service.deduct_credit("a", amount=5)
    clock.move(hours=24)
    assert await service.check_credits("a") == 50


ABSENT = {("database", Storage.MEMORY), ("rollout", Storage.MEMORY), ("rollout", Storage.POSTGRES)}
"""Providers that return None, and in which storage mode."""


@pytest.mark.parametrize("storage", list(Storage))
async def test_every_provider_can_be_built(storage: Storage) -> None:
    """Building works in each storage mode and opens no connection."""
    settings = postgres_settings("postgresql://app@127.0.0.1:1/none")
    container = Container(settings=settings.model_copy(update={"storage": StorageSettings(storage=storage)}))
    for name, provider in container.providers.items():
        if (name, storage) in ABSENT or name == "shared_answers":  # without REDIS_URL
            assert provider() is None
        elif name != "shutdown":
            assert provider() is not None, name
    await container.shutdown()
