"""Both twins at once, wired: the storages where users' rows may be, and each port's way to them. No logic."""

from typing import Any

from dependency_injector import providers

from shopassist.consent.memory import MemoryConsentLookup
from shopassist.credits.memory.ledger import MemoryCreditLedger
from shopassist.credits.memory.repository import MemoryIdempotencyStore
from shopassist.credits.ports import LedgerCounters
from shopassist.db.memory import MemoryStore, MemoryUnitOfWork
from shopassist.rollout.controller import Rollout
from shopassist.rollout.memory import MemoryUserRows
from shopassist.rollout.models import Assignment
from shopassist.rollout.placement import Backend, UserPlacement
from shopassist.rollout.postgres import PostgresUserRows
from shopassist.rollout.routed_ports import ROUTES, RoutedPort
from shopassist.rollout.router import Router
from shopassist.rollout.unit_of_work import RoutedUnitOfWork
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


def of_all(side: str, **others: providers.Provider[Any]) -> providers.Provider[Any]:
    """Providers of the ports of one side by name, but for `others`."""
    ports = {name: of(side, getattr(State, name)) for name in ROUTES} | others
    return providers.Dict({name: port.provider for name, port in ports.items()})


class Sides(State):
    """State on both sides, and who is on which."""

    memory_backend = providers.Singleton(
        Backend,
        ports=of_all(
            MEMORY,
            unit_of_work=providers.Singleton(
                MemoryUnitOfWork, store=State.memory_store, repositories=MEMORY_REPOSITORIES
            ),
        ),
        rows=providers.Singleton(MemoryUserRows, store=State.memory_store),
    )
    mirror_store = providers.Singleton(MemoryStore, clock=State.clock)
    mirror_backend = providers.Singleton(
        Backend,
        ports=of_all(
            MEMORY,
            unit_of_work=providers.Singleton(MemoryUnitOfWork, store=mirror_store, repositories=MEMORY_REPOSITORIES),
            credit_ledger=providers.Singleton(
                MemoryCreditLedger,
                store=mirror_store,
                policy=State.credit_policy,
                subjects=State.user_hasher,
                figures=providers.Singleton(LedgerCounters),
            ),
            replays=providers.Singleton(MemoryIdempotencyStore, store=mirror_store, policy=State.credit_policy),
            consent_lookup=providers.Singleton(MemoryConsentLookup, store=mirror_store),
        ),
        rows=providers.Singleton(MemoryUserRows, store=mirror_store),
    )
    postgres_backend = providers.Singleton(
        Backend,
        ports=of_all(POSTGRES, unit_of_work=of(POSTGRES, State.unit_of_work)),
        rows=providers.Singleton(PostgresUserRows, manager=State.database_manager),
    )
    placement = providers.Singleton(
        UserPlacement,
        assignment=providers.Singleton(
            Assignment,
            percent=State.settings.provided.storage.rollout_percent,
            is_shadowing=State.settings.provided.storage.rollout_shadow,
        ),
        memory=memory_backend,
        mirror=mirror_backend,
        postgres=postgres_backend,
    )
    router = providers.Singleton(Router, placement=placement)
    rollout = providers.Selector(
        State.storage,
        rollout=providers.Singleton(Rollout, router=router, leases=of(POSTGRES, State.leases)),
        postgres=providers.Object(None),
        memory=providers.Object(None),
    )
    background_services = providers.Selector(
        State.storage, rollout=providers.List(rollout), postgres=providers.List(), memory=providers.List()
    )


def goes_both_ways(port: providers.Selector, way: providers.Provider[Any]) -> None:
    """Let a port take `way` while people move."""
    port.set_providers(**port.providers, rollout=way)


goes_both_ways(State.unit_of_work, providers.Singleton(RoutedUnitOfWork, router=Sides.router))
goes_both_ways(State.lagging_reads, providers.Singleton(RoutedUnitOfWork, router=Sides.router, writes=False))
for name in ROUTES:
    goes_both_ways(getattr(State, name), providers.Singleton(RoutedPort, router=Sides.router, port=name))
for repository in REPOSITORIES.values():
    goes_both_ways(repository, of(POSTGRES, repository))
# One process leads itself, also when PostgreSQL is away.
goes_both_ways(State.leases, of(MEMORY, State.leases))
goes_both_ways(State.maintenance_runs, of(POSTGRES, State.maintenance_runs))
goes_both_ways(State.vacuum, of(POSTGRES, State.vacuum))
goes_both_ways(State.database, of(POSTGRES, State.database))
goes_both_ways(State.replica, of(MEMORY, State.replica))
