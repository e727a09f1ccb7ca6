"""Parts that every storage is built with: the clock, the policies and the hash of user ids."""

from dependency_injector import containers, providers

from shopassist.credits.models import CreditPolicy
from shopassist.db.ports import Clock
from shopassist.identity.key_derivation import UserHasher
from shopassist.privacy.models import ErasurePolicy
from shopassist.settings import Settings


class CommonParts(containers.DeclarativeContainer):
    """The clock, the policies and the hash of user ids, as the settings say."""

    settings: providers.Provider[Settings] = providers.Dependency(instance_of=Settings)
    clock: providers.Provider[Clock] = providers.Dependency()
    credit_policy = providers.Singleton(
        CreditPolicy,
        max_guest_credits=settings.provided.credits.max_guest_credits,
        max_registered_credits=settings.provided.credits.max_registered_credits,
        reset_interval=settings.provided.credits.reset_interval,
        hold_lifetime=settings.provided.credits.hold_lifetime,
        guest_accounts_per_network=settings.provided.guests.accounts_per_network,
        retention_days=settings.provided.credits.retention_days,
    )
    erasure_policy = providers.Singleton(
        ErasurePolicy, credits=credit_policy, list_lifetime=settings.provided.privacy.erasure_list_lifetime
    )
    user_hasher = providers.Singleton(UserHasher, settings=settings)
