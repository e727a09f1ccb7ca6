"""Ports over the memory of this process."""

from typing import Any

from dependency_injector import containers, providers

from shopassist.audit.storages import MemoryAdminAudit
from shopassist.cache.memory import MemoryCachedAnswers, MemoryCacheRepository
from shopassist.catalog.memory import MemoryCatalogRepository
from shopassist.consent.memory import (
    MemoryConsentHistory,
    MemoryConsentLookup,
    MemoryConsentRepository,
    MemoryNoticeRepository,
)
from shopassist.credits.memory import MemoryCreditLedger
from shopassist.credits.memory_rows import MemoryCreditRepository, MemoryIdempotencyStore, MemoryLedgerReconciliation
from shopassist.credits.ports import LedgerCounters
from shopassist.db.memory import MemoryStore, MemoryUnitOfWork
from shopassist.db.replica import Replica
from shopassist.maintenance.memory import MemoryLeases, MemoryMaintenanceRuns, skip_vacuum
from shopassist.privacy.memory import MemoryErasureRepository, MemoryGuestMergeRepository, MemoryPersonalDataReader
from shopassist.storage.repositories import Repositories


class MemoryStorage(containers.DeclarativeContainer):
    """State in the memory of this process: for tests, and one side of a rollout."""

    common = providers.DependenciesContainer()
    ledger_counters: providers.Provider[LedgerCounters] = providers.Dependency(instance_of=LedgerCounters)

    memory_store = providers.Singleton(MemoryStore, clock=common.clock)
    close = memory_store.provided.close

    credit_repository = providers.Factory(MemoryCreditRepository)
    consent_repository = providers.Factory(MemoryConsentRepository)
    consent_history_repository = providers.Factory(MemoryConsentHistory)
    notice_repository = providers.Factory(MemoryNoticeRepository)
    admin_audit_repository = providers.Factory(MemoryAdminAudit)
    cache_repository = providers.Factory(MemoryCacheRepository)
    catalog_repository = providers.Factory(MemoryCatalogRepository)
    guest_merge_repository = providers.Factory(MemoryGuestMergeRepository, hash_user_id=common.user_hasher)
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
    replica = providers.Singleton(Replica, config=None, primary=None)
    database: providers.Provider[None] = providers.Object(None)
    unit_of_work = providers.Singleton(MemoryUnitOfWork, store=memory_store, repositories=repositories)
    replica_reads = unit_of_work
    credit_ledger = providers.Singleton(
        MemoryCreditLedger,
        store=memory_store,
        policy=common.credit_policy,
        hash_user=common.user_hasher,
        counters=ledger_counters,
    )
    cached_answers = providers.Singleton(MemoryCachedAnswers, store=memory_store)
    consent_lookup = providers.Singleton(MemoryConsentLookup, store=memory_store)
    replays = providers.Singleton(MemoryIdempotencyStore, store=memory_store, policy=common.credit_policy)
    audit = providers.Singleton(MemoryLedgerReconciliation, store=memory_store)
    personal_data = providers.Singleton(MemoryPersonalDataReader, store=memory_store)
    erasures = providers.Singleton(MemoryErasureRepository, store=memory_store, policy=common.erasure_policy)
    leases = providers.Singleton(MemoryLeases, store=memory_store)
    maintenance_runs = providers.Singleton(MemoryMaintenanceRuns, store=memory_store)
    vacuum = providers.Object(skip_vacuum)
    rollout: providers.Provider[None] = providers.Object(None)
    background_services: providers.Provider[list[Any]] = providers.List()
