"""Who comes in, wired: where clients come from, which guests are believed, and how often all may ask. No logic."""

from dependency_injector import providers

from shopassist.identity.guests import GuestSessions
from shopassist.identity.limits import MemoryCounters, RateLimits
from shopassist.identity.networks import Networks
from shopassist.identity.secret import derived_key
from shopassist.wiring.sharing import Sharing
from shopassist.wiring.state import State


class Door(Sharing):
    """What stands before the services."""

    networks = providers.Singleton(
        Networks,
        key=providers.Callable(derived_key, State.settings, "client network"),
        trusted=State.settings.provided.server.trusted_proxies,
        loopback_counts=State.settings.provided.server.production,
    )
    guest_sessions = providers.Singleton(
        GuestSessions,
        key=providers.Callable(derived_key, State.settings, "guest session"),
        only_signed=State.settings.provided.guests.only_signed,
    )
    rate_counters = providers.Singleton(MemoryCounters)
    rate_limits = providers.Singleton(
        RateLimits,
        counters=rate_counters,
        questions=State.settings.provided.limits.questions_per_minute,
        reads=State.settings.provided.limits.reads_per_minute,
        network_factor=State.settings.provided.limits.network_factor,
    )
