"""Ports over PostgreSQL."""

from functools import partial
from typing import Any

from dependency_injector import containers, providers

from shopassist.audit.storages import PostgresAdminAudit
from shopassist.cache.postgres import PostgresCachedAnswers, PostgresCacheRepository
from shopassist.catalog.postgres import PostgresCatalogRepository
from shopassist.consent.postgres import (
    PostgresConsentHistory,
    PostgresConsentLookup,
    PostgresConsentRepository,
    PostgresNoticeRepository,
)
from shopassist.credits.ports import LedgerCounters
from shopassist.credits.postgres.ledger import PostgresCreditLedger
from shopassist.credits.postgres.repository import (
    PostgresCreditRepository,
    PostgresIdempotencyStore,
    PostgresLedgerReconciliation,
)
from shopassist.db.database import DatabaseManager, PostgresUnitOfWork
from shopassist.db.replica import PostgresReplicaReads, Replica
from shopassist.db.resilience import Resilience, ResilienceLimits
from shopassist.maintenance.postgres import PostgresLeases, PostgresMaintenanceRuns, vacuum_due_tables
from shopassist.privacy.postgres import (
    PostgresErasureRepository,
    PostgresGuestMergeRepository,
    PostgresPersonalDataReader,
)
from shopassist.storage.repositories import Repositories


class PostgresStorage(containers.DeclarativeContainer):
    """State in PostgreSQL."""

    common = providers.DependenciesContainer()
    ledger_counters: providers.Provider[LedgerCounters] = providers.Dependency(instance_of=LedgerCounters)

    limits = providers.Singleton(ResilienceLimits.from_settings, common.settings.provided.database)
    resilience = providers.Singleton(Resilience, limits=limits)
    database_manager = providers.Singleton(
        DatabaseManager, config=common.settings.provided.database, resilience=resilience
    )
    close = database_manager.provided.close

    credit_repository = providers.Factory(PostgresCreditRepository, clock=common.clock)
    consent_repository = providers.Factory(PostgresConsentRepository, clock=common.clock)
    consent_history_repository = providers.Factory(PostgresConsentHistory, clock=common.clock)
    notice_repository = providers.Factory(PostgresNoticeRepository, clock=common.clock)
    admin_audit_repository = providers.Factory(PostgresAdminAudit, clock=common.clock)
    cache_repository = providers.Factory(PostgresCacheRepository, clock=common.clock)
    catalog_repository = providers.Factory(PostgresCatalogRepository)
    guest_merge_repository = providers.Factory(
        PostgresGuestMergeRepository, hash_user_id=common.user_hasher, clock=common.clock
    )
    repositories = providers.Factory(
        Repositories,
        credits=credit_repository.provider,
        consents=consent_repository.provider,
        consent_history=consent_history_repository.provider,
        notices=notice_repository.provider,
        admin_audit=admin_audit_repository.provider,
        cache=cache_repository.provider,
        catalog=catalog_repository.provider,
        guest_merges=guest_merge_repository.provider,
    ).provider
    replica = providers.Singleton(Replica, config=common.settings.provided.database, primary=database_manager)
    database = database_manager
    unit_of_work = providers.Singleton(PostgresUnitOfWork, manager=database_manager, repositories=repositories)
    replica_reads = providers.Factory(
        PostgresReplicaReads, unit_of_work=unit_of_work, replica=replica, repositories=repositories
    )
    credit_ledger = providers.Singleton(
        PostgresCreditLedger,
        manager=database_manager,
        policy=common.credit_policy,
        clock=common.clock,
        hash_user=common.user_hasher,
        counters=ledger_counters,
    )
    cached_answers = providers.Singleton(PostgresCachedAnswers, manager=database_manager, clock=common.clock)
    consent_lookup = providers.Singleton(PostgresConsentLookup, manager=database_manager, clock=common.clock)
    replays = providers.Singleton(
        PostgresIdempotencyStore,
        manager=database_manager,
        policy=common.credit_policy,
        clock=common.clock,
    )
    audit = providers.Singleton(PostgresLedgerReconciliation, manager=database_manager)
    personal_data = providers.Singleton(PostgresPersonalDataReader, manager=database_manager)
    erasures = providers.Singleton(
        PostgresErasureRepository,
        manager=database_manager,
        policy=common.erasure_policy,
        clock=common.clock,
    )
    leases = providers.Singleton(PostgresLeases, manager=database_manager, clock=common.clock)
    maintenance_runs = providers.Singleton(PostgresMaintenanceRuns, manager=database_manager, clock=common.clock)
    vacuum = providers.Singleton(partial, vacuum_due_tables, common.settings)
    rollout: providers.Provider[None] = providers.Object(None)
    background_services: providers.Provider[list[Any]] = providers.List()
