"""Storage of a rollout: both storages behind routed ports, and the copy in memory of what PostgreSQL has."""

from typing import Any

from dependency_injector import containers, providers

from shopassist.rollout.controller import Rollout
from shopassist.rollout.memory import MemoryUserRows
from shopassist.rollout.models import Assignment
from shopassist.rollout.placement import Backend, UserPlacement
from shopassist.rollout.postgres import PostgresUserRows
from shopassist.rollout.routed_ports import RoutedPort
from shopassist.rollout.router import Router
from shopassist.rollout.unit_of_work import RoutedUnitOfWork
from shopassist.settings import Settings


class RolloutStorage(containers.DeclarativeContainer):
    """Ports that send each user's calls to the storage that has the user's rows."""

    settings: providers.Provider[Settings] = providers.Dependency(instance_of=Settings)
    memory: providers.Provider[Any] = providers.Dependency()
    mirror: providers.Provider[Any] = providers.Dependency()
    postgres: providers.Provider[Any] = providers.Dependency()

    memory_backend = providers.Singleton(
        Backend, storage=memory, rows=providers.Singleton(MemoryUserRows, store=memory.provided.memory_store.call())
    )
    mirror_backend = providers.Singleton(
        Backend, storage=mirror, rows=providers.Singleton(MemoryUserRows, store=mirror.provided.memory_store.call())
    )
    postgres_backend = providers.Singleton(
        Backend,
        storage=postgres,
        rows=providers.Singleton(PostgresUserRows, manager=postgres.provided.database_manager.call()),
    )
    placement = providers.Singleton(
        UserPlacement,
        assignment=providers.Singleton(
            Assignment,
            percent=settings.provided.storage.rollout_percent,
            is_shadowing=settings.provided.storage.rollout_shadow,
        ),
        memory=memory_backend,
        mirror=mirror_backend,
        postgres=postgres_backend,
    )
    router = providers.Singleton(Router, placement=placement)
    rollout = providers.Singleton(Rollout, router=router, leases=postgres.provided.leases.call())
    background_services = providers.List(rollout)

    unit_of_work = providers.Singleton(RoutedUnitOfWork, router=router)
    lagging_reads = providers.Singleton(RoutedUnitOfWork, router=router, writes=False)
    credit_ledger = providers.Singleton(RoutedPort, router=router, port="credit_ledger")
    replays = providers.Singleton(RoutedPort, router=router, port="replays")
    consent_lookup = providers.Singleton(RoutedPort, router=router, port="consent_lookup")
    personal_data = providers.Singleton(RoutedPort, router=router, port="personal_data")
    erasures = providers.Singleton(RoutedPort, router=router, port="erasures")
    cached_answers = providers.Singleton(RoutedPort, router=router, port="cached_answers")
    audit = providers.Singleton(RoutedPort, router=router, port="audit")
    # The one process of a rollout leads itself, also while PostgreSQL is down.
    leases = memory.provided.leases.call()
    maintenance_runs = postgres.provided.maintenance_runs.call()
    vacuum = postgres.provided.vacuum.call()
    database = postgres.provided.database.call()
    replica = memory.provided.replica.call()
    close = postgres.provided.close.call()
