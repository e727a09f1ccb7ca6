"""Who comes in, wired: where clients come from, which guests are believed, and how often all may ask. No logic."""

from dependency_injector import providers

from shopassist.identity.client_network import ClientNetworks
from shopassist.identity.guests import GuestSessions
from shopassist.identity.key_derivation import derive_key
from shopassist.identity.rate_limits import MemoryRateCounters, RateLimits
from shopassist.wiring.sharing import Sharing
from shopassist.wiring.state import State


class Door(Sharing):
    """What stands before the services."""

    networks = providers.Singleton(
        ClientNetworks,
        key=providers.Callable(derive_key, State.settings, "client network"),
        trusted=State.settings.provided.server.trusted_proxies,
        loopback_counts=State.settings.provided.server.production,
    )
    guest_sessions = providers.Singleton(
        GuestSessions,
        key=providers.Callable(derive_key, State.settings, "guest session"),
        only_signed=State.settings.provided.guests.only_signed,
    )
    rate_counters = providers.Singleton(MemoryRateCounters)
    rate_limits = providers.Singleton(
        RateLimits,
        counters=rate_counters,
        questions=State.settings.provided.limits.questions_per_minute,
        reads=State.settings.provided.limits.reads_per_minute,
        network_factor=State.settings.provided.limits.network_factor,
    )
