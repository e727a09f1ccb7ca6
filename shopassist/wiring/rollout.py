"""Both twins at once, wired: the places where people's state may be, and each port's way to them. No logic."""

from typing import Any

from dependency_injector import providers

from shopassist.consent.memory import MemoryConsentLookup
from shopassist.credits.memory.ledger import MemoryCreditLedger
from shopassist.credits.memory.repository import MemoryIdempotencyStore
from shopassist.credits.ports import LedgerCounters
from shopassist.db.memory import MemoryStore, MemoryUnitOfWork
from shopassist.privacy.memory import MemoryPersonalDataReader
from shopassist.rollout.assignment import Assignment
from shopassist.rollout.backends import Backend
from shopassist.rollout.controller import Rollout
from shopassist.rollout.memory import MemoryUserRows
from shopassist.rollout.placement import UserPlacement
from shopassist.rollout.postgres import PostgresUserRows
from shopassist.rollout.routed_ports import (
    RolloutConsentLookup,
    RolloutCreditLedger,
    RolloutErasures,
    RolloutHoldings,
    RolloutReconciliation,
    RolloutReplays,
)
from shopassist.rollout.routed_storage import (
    RolloutCachedAnswers,
    RolloutCacheEpochs,
    RolloutGuestNetworks,
    RolloutUnitOfWork,
)
from shopassist.rollout.router import Router
from shopassist.storage import RepositoryFactories
from shopassist.wiring.state import State

MEMORY, POSTGRES = "memory", "postgres"


def of(side: str, port: providers.Selector) -> Any:
    """The twin of a port on one side."""
    return port.providers[side]


REPOSITORIES = {name: delegate.provides for name, delegate in State.repositories.kwargs.items()}
MEMORY_REPOSITORIES = providers.Singleton(
    RepositoryFactories, **{name: of(MEMORY, repository).provider for name, repository in REPOSITORIES.items()}
)


class Sides(State):
    """State on both sides, and who is on which."""

    memory_unit_of_work = providers.Singleton(
        MemoryUnitOfWork, store=State.memory_store, repositories=MEMORY_REPOSITORIES
    )
    memory_state = providers.Singleton(MemoryUserRows, store=State.memory_store)
    memory_place = providers.Singleton(
        Backend,
        state=memory_state,
        ledger=of(MEMORY, State.credit_ledger),
        unit_of_work=memory_unit_of_work,
        replays=of(MEMORY, State.replays),
        consent_lookup=of(MEMORY, State.consent_lookup),
        personal_data=of(MEMORY, State.personal_data),
        cached_answers=of(MEMORY, State.cached_answers),
    )
    mirror_store = providers.Singleton(MemoryStore, clock=State.clock)
    mirror_state = providers.Singleton(MemoryUserRows, store=mirror_store)
    mirror_place = providers.Singleton(
        Backend,
        state=mirror_state,
        ledger=providers.Singleton(
            MemoryCreditLedger,
            store=mirror_store,
            policy=State.credit_policy,
            subjects=State.user_hasher,
            figures=providers.Singleton(LedgerCounters),
        ),
        unit_of_work=providers.Singleton(MemoryUnitOfWork, store=mirror_store, repositories=MEMORY_REPOSITORIES),
        replays=providers.Singleton(MemoryIdempotencyStore, store=mirror_store, policy=State.credit_policy),
        consent_lookup=providers.Singleton(MemoryConsentLookup, store=mirror_store),
        personal_data=providers.Singleton(MemoryPersonalDataReader, store=mirror_store),
        cached_answers=of(MEMORY, State.cached_answers),
    )
    postgres_place = providers.Singleton(
        Backend,
        state=providers.Singleton(PostgresUserRows, manager=State.database_manager),
        ledger=of(POSTGRES, State.credit_ledger),
        unit_of_work=of(POSTGRES, State.unit_of_work),
        replays=of(POSTGRES, State.replays),
        consent_lookup=of(POSTGRES, State.consent_lookup),
        personal_data=of(POSTGRES, State.personal_data),
        cached_answers=of(POSTGRES, State.cached_answers),
    )
    dial = providers.Singleton(
        Assignment,
        percent=State.settings.provided.storage.rollout_percent,
        is_shadowing=State.settings.provided.storage.rollout_shadow,
    )
    residence = providers.Singleton(
        UserPlacement,
        dial=dial,
        memory=memory_place,
        mirror=mirror_place,
        postgres=postgres_place,
        copies=providers.List(memory_state, mirror_state),
    )
    routing = providers.Singleton(Router, residence=residence)
    rollout = providers.Selector(
        State.storage,
        rollout=providers.Singleton(Rollout, routing=routing, leases=of(POSTGRES, State.leases)),
        postgres=providers.Object(None),
        memory=providers.Object(None),
    )


def goes_both_ways(port: providers.Selector, way: providers.Provider[Any]) -> None:
    """Let a port take `way` while people move."""
    port.set_providers(**port.providers, rollout=way)


goes_both_ways(State.unit_of_work, providers.Singleton(RolloutUnitOfWork, routing=Sides.routing))
goes_both_ways(State.lagging_reads, providers.Singleton(RolloutUnitOfWork, routing=Sides.routing, only_reads=True))
goes_both_ways(State.credit_ledger, providers.Singleton(RolloutCreditLedger, routing=Sides.routing))
goes_both_ways(State.replays, providers.Singleton(RolloutReplays, routing=Sides.routing))
goes_both_ways(State.consent_lookup, providers.Singleton(RolloutConsentLookup, routing=Sides.routing))
goes_both_ways(State.personal_data, providers.Singleton(RolloutHoldings, routing=Sides.routing))
goes_both_ways(
    State.erasures,
    providers.Singleton(RolloutErasures, routing=Sides.routing, postgres=of(POSTGRES, State.erasures)),
)
goes_both_ways(State.cached_answers, providers.Singleton(RolloutCachedAnswers, residence=Sides.residence))
goes_both_ways(
    State.cache_epochs,
    providers.Singleton(
        RolloutCacheEpochs, postgres=of(POSTGRES, State.cache_epochs), memory=Sides.memory_unit_of_work
    ),
)
goes_both_ways(
    State.guest_networks,
    providers.Singleton(
        RolloutGuestNetworks,
        memory=of(MEMORY, State.guest_networks),
        postgres=of(POSTGRES, State.guest_networks),
    ),
)
goes_both_ways(
    State.audit,
    providers.Singleton(RolloutReconciliation, memory=of(MEMORY, State.audit), postgres=of(POSTGRES, State.audit)),
)
for repository in REPOSITORIES.values():
    goes_both_ways(repository, of(POSTGRES, repository))
# One process leads itself, also when PostgreSQL is away.
goes_both_ways(State.leases, of(MEMORY, State.leases))
goes_both_ways(State.maintenance_runs, of(POSTGRES, State.maintenance_runs))
goes_both_ways(State.vacuum, of(POSTGRES, State.vacuum))
goes_both_ways(State.database, of(POSTGRES, State.database))
goes_both_ways(State.replica, of(MEMORY, State.replica))
