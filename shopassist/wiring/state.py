"""Where state is kept, wired: each port with its two twins, chosen by `STORAGE`. No logic."""

from typing import Any

from dependency_injector import containers, providers

from shopassist.audit.memory import MemoryAdminAudit
from shopassist.audit.postgres import PostgresAdminAudit
from shopassist.cache.memory import MemoryCachedAnswers, MemoryCacheEpochs, MemoryCacheRepository
from shopassist.cache.postgres import PostgresCachedAnswers, PostgresCacheEpochs, PostgresCacheRepository
from shopassist.catalog.memory import MemoryCatalogRepository
from shopassist.catalog.postgres.repository import PostgresCatalogRepository
from shopassist.consent.memory import (
    MemoryConsentHistory,
    MemoryConsentLookup,
    MemoryConsentRepository,
    MemoryNoticeRepository,
)
from shopassist.consent.ports import ConsentCounters
from shopassist.consent.postgres import (
    PostgresConsentHistory,
    PostgresConsentLookup,
    PostgresConsentRepository,
    PostgresNoticeRepository,
)
from shopassist.credits.memory.ledger import MemoryCreditLedger
from shopassist.credits.memory.repository import (
    MemoryCreditRepository,
    MemoryGuestNetworks,
    MemoryIdempotencyStore,
    MemoryLedgerReconciliation,
)
from shopassist.credits.models import CreditPolicy
from shopassist.credits.ports import LedgerCounters
from shopassist.credits.postgres.ledger import PostgresCreditLedger
from shopassist.credits.postgres.repository import (
    PostgresCreditRepository,
    PostgresGuestNetworks,
    PostgresIdempotencyStore,
    PostgresLedgerReconciliation,
)
from shopassist.db.database import DatabaseManager
from shopassist.db.memory import MemoryStore, MemoryUnitOfWork
from shopassist.db.ports import SystemClock
from shopassist.db.replica import PostgresReplicaReads, Replica
from shopassist.db.resilience import Resilience, ResilienceLimits
from shopassist.db.unit_of_work import PostgresUnitOfWork
from shopassist.identity.caller import UserHasher
from shopassist.maintenance.memory import MemoryLeases, MemoryMaintenanceRuns, MemoryVacuum
from shopassist.maintenance.postgres import PostgresLeases, PostgresMaintenanceRuns, PostgresVacuum
from shopassist.privacy.memory import MemoryErasureRepository, MemoryGuestMergeRepository, MemoryPersonalDataReader
from shopassist.privacy.models import ErasurePolicy
from shopassist.privacy.ports import ErasureCounters
from shopassist.privacy.postgres import (
    PostgresErasureRepository,
    PostgresGuestMergeRepository,
    PostgresPersonalDataReader,
)
from shopassist.settings import Settings
from shopassist.storage import RepositoryFactories


class State(containers.DeclarativeContainer):
    """The state of the product and who may ask for it."""

    settings = providers.Dependency(instance_of=Settings)
    storage = providers.Singleton(str, settings.provided.storage.storage.value)

    clock = providers.Singleton(SystemClock)
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

    limits = providers.Singleton(
        ResilienceLimits,
        attempts=settings.provided.database.retry_attempts,
        retry_seconds=settings.provided.database.retry_timeout,
        hot_seconds=settings.provided.database.hot_timeout,
    )
    resilience = providers.Singleton(Resilience, limits=limits)
    database_manager = providers.Singleton(DatabaseManager, config=settings.provided.database, resilience=resilience)
    replica = providers.Selector(
        storage,
        postgres=providers.Singleton(Replica, config=settings.provided.database, primary=database_manager),
        memory=providers.Singleton(Replica, config=None, primary=None),
    )
    database = providers.Selector(storage, postgres=database_manager, memory=providers.Object(None))
    memory_store = providers.Singleton(MemoryStore, clock=clock)

    credit_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresCreditRepository, clock=clock),
        memory=providers.Factory(MemoryCreditRepository),
    )
    consent_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresConsentRepository, clock=clock),
        memory=providers.Factory(MemoryConsentRepository),
    )
    consent_history_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresConsentHistory, clock=clock),
        memory=providers.Factory(MemoryConsentHistory),
    )
    notice_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresNoticeRepository, clock=clock),
        memory=providers.Factory(MemoryNoticeRepository),
    )
    admin_audit_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresAdminAudit, clock=clock),
        memory=providers.Factory(MemoryAdminAudit),
    )
    cache_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresCacheRepository, clock=clock),
        memory=providers.Factory(MemoryCacheRepository),
    )
    catalog_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresCatalogRepository),
        memory=providers.Factory(MemoryCatalogRepository),
    )
    guest_merge_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresGuestMergeRepository, hash_user_id=user_hasher, clock=clock),
        memory=providers.Factory(MemoryGuestMergeRepository, hash_user_id=user_hasher),
    )

    repositories: providers.Singleton[RepositoryFactories[Any]] = providers.Singleton(
        RepositoryFactories,
        credits=credit_repository.provider,
        consents=consent_repository.provider,
        consent_history=consent_history_repository.provider,
        notices=notice_repository.provider,
        admin_audit=admin_audit_repository.provider,
        cache=cache_repository.provider,
        catalog=catalog_repository.provider,
        guest_merges=guest_merge_repository.provider,
    )
    unit_of_work = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresUnitOfWork, manager=database_manager, repositories=repositories),
        memory=providers.Singleton(MemoryUnitOfWork, store=memory_store, repositories=repositories),
    )
    lagging_reads = providers.Selector(
        storage,
        postgres=providers.Factory(
            PostgresReplicaReads, unit_of_work=unit_of_work, replica=replica, repositories=repositories
        ),
        memory=unit_of_work,
    )
    ledger_figures = providers.Singleton(LedgerCounters)
    consent_counters = providers.Singleton(ConsentCounters)
    erasure_counters = providers.Singleton(ErasureCounters)
    credit_ledger = providers.Selector(
        storage,
        postgres=providers.Singleton(
            PostgresCreditLedger,
            manager=database_manager,
            policy=credit_policy,
            clock=clock,
            subjects=user_hasher,
            figures=ledger_figures,
        ),
        memory=providers.Singleton(
            MemoryCreditLedger,
            store=memory_store,
            policy=credit_policy,
            subjects=user_hasher,
            figures=ledger_figures,
        ),
    )
    cached_answers = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresCachedAnswers, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryCachedAnswers, store=memory_store),
    )
    consent_lookup = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresConsentLookup, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryConsentLookup, store=memory_store),
    )
    cache_epochs = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresCacheEpochs, manager=database_manager),
        memory=providers.Singleton(MemoryCacheEpochs),
    )
    replays = providers.Selector(
        storage,
        postgres=providers.Singleton(
            PostgresIdempotencyStore, manager=database_manager, policy=credit_policy, clock=clock
        ),
        memory=providers.Singleton(MemoryIdempotencyStore, store=memory_store, policy=credit_policy),
    )
    guest_networks = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresGuestNetworks, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryGuestNetworks, store=memory_store),
    )
    audit = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresLedgerReconciliation, manager=database_manager),
        memory=providers.Singleton(MemoryLedgerReconciliation, store=memory_store),
    )
    personal_data = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresPersonalDataReader, manager=database_manager),
        memory=providers.Singleton(MemoryPersonalDataReader, store=memory_store),
    )
    erasures = providers.Selector(
        storage,
        postgres=providers.Singleton(
            PostgresErasureRepository, manager=database_manager, policy=erasure_policy, clock=clock
        ),
        memory=providers.Singleton(MemoryErasureRepository, store=memory_store, policy=erasure_policy),
    )
    leases = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresLeases, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryLeases, store=memory_store),
    )
    maintenance_runs = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresMaintenanceRuns, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryMaintenanceRuns, store=memory_store),
    )
    vacuum = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresVacuum, config=settings.provided.database),
        memory=providers.Singleton(MemoryVacuum),
    )
