"""Where state is kept, wired: each port with its two twins, chosen by `STORAGE`. No logic."""

from typing import Any

from dependency_injector import containers, providers

from shopassist.db.manager import DatabaseManager
from shopassist.db.memory.admin_audit import MemoryAdminAudit
from shopassist.db.memory.audit import MemoryLedgerAudit
from shopassist.db.memory.cache_epochs import MemoryCacheEpochs
from shopassist.db.memory.cached_answers import MemoryCachedAnswers
from shopassist.db.memory.catalog import MemoryCatalogRepository
from shopassist.db.memory.consent_history import MemoryConsentHistory, MemoryConsentLookup
from shopassist.db.memory.consents import MemoryConsentRepository
from shopassist.db.memory.credits import MemoryCreditRepository
from shopassist.db.memory.erasures import MemoryErasures
from shopassist.db.memory.guest_merges import MemoryGuestMerges
from shopassist.db.memory.guest_networks import MemoryGuestNetworks
from shopassist.db.memory.holdings import MemoryHoldings
from shopassist.db.memory.leases import MemoryLeases
from shopassist.db.memory.ledger import MemoryCreditLedger
from shopassist.db.memory.maintenance_runs import MemoryMaintenanceRuns, MemoryVacuum
from shopassist.db.memory.notices import MemoryNoticeRepository
from shopassist.db.memory.query_cache import MemoryCacheRepository
from shopassist.db.memory.replays import MemoryReplays
from shopassist.db.memory.store import MemoryStore
from shopassist.db.memory.unit_of_work import MemoryUnitOfWork
from shopassist.db.ports import RepositoryFactories, SystemClock
from shopassist.db.postgres.admin_audit import PostgresAdminAudit
from shopassist.db.postgres.audit import PostgresLedgerAudit
from shopassist.db.postgres.cache_epochs import PostgresCacheEpochs
from shopassist.db.postgres.cached_answers import PostgresCachedAnswers
from shopassist.db.postgres.catalog import PostgresCatalogRepository
from shopassist.db.postgres.consent_history import PostgresConsentHistory
from shopassist.db.postgres.consent_lookup import PostgresConsentLookup
from shopassist.db.postgres.consents import PostgresConsentRepository
from shopassist.db.postgres.credits import PostgresCreditRepository
from shopassist.db.postgres.erasures import PostgresErasures
from shopassist.db.postgres.guest_merges import PostgresGuestMerges
from shopassist.db.postgres.guest_networks import PostgresGuestNetworks
from shopassist.db.postgres.holdings import PostgresHoldings
from shopassist.db.postgres.lagging_reads import PostgresLaggingReads
from shopassist.db.postgres.leases import PostgresLeases
from shopassist.db.postgres.ledger import PostgresCreditLedger
from shopassist.db.postgres.maintenance_runs import PostgresMaintenanceRuns
from shopassist.db.postgres.notices import PostgresNoticeRepository
from shopassist.db.postgres.query_cache import PostgresCacheRepository
from shopassist.db.postgres.replays import PostgresReplays
from shopassist.db.postgres.unit_of_work import PostgresUnitOfWork
from shopassist.db.postgres.vacuum import PostgresVacuum
from shopassist.db.replica import Replica
from shopassist.db.resilience.policy import Limits, Resilience
from shopassist.identity.subjects import SubjectHash
from shopassist.models.erasure import ErasurePolicy
from shopassist.models.ledger import CreditPolicy, LedgerFigures
from shopassist.models.privacy_figures import PrivacyFigures
from shopassist.settings import Settings


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
    subject_hash = providers.Singleton(SubjectHash, settings=settings)

    limits = providers.Singleton(
        Limits,
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
    merge_repository = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresGuestMerges, subjects=subject_hash, clock=clock),
        memory=providers.Factory(MemoryGuestMerges, subjects=subject_hash),
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
        merges=merge_repository.provider,
    )
    unit_of_work = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresUnitOfWork, manager=database_manager, repositories=repositories),
        memory=providers.Singleton(MemoryUnitOfWork, store=memory_store, repositories=repositories),
    )
    lagging_reads = providers.Selector(
        storage,
        postgres=providers.Factory(
            PostgresLaggingReads, unit_of_work=unit_of_work, replica=replica, repositories=repositories
        ),
        memory=unit_of_work,
    )
    ledger_figures = providers.Singleton(LedgerFigures)
    privacy_figures = providers.Singleton(PrivacyFigures)
    credit_ledger = providers.Selector(
        storage,
        postgres=providers.Singleton(
            PostgresCreditLedger,
            manager=database_manager,
            policy=credit_policy,
            clock=clock,
            subjects=subject_hash,
            figures=ledger_figures,
        ),
        memory=providers.Singleton(
            MemoryCreditLedger,
            store=memory_store,
            policy=credit_policy,
            subjects=subject_hash,
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
        postgres=providers.Singleton(PostgresReplays, manager=database_manager, policy=credit_policy, clock=clock),
        memory=providers.Singleton(MemoryReplays, store=memory_store, policy=credit_policy),
    )
    guest_networks = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresGuestNetworks, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryGuestNetworks, store=memory_store),
    )
    audit = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresLedgerAudit, manager=database_manager),
        memory=providers.Singleton(MemoryLedgerAudit, store=memory_store),
    )
    holdings = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresHoldings, manager=database_manager),
        memory=providers.Singleton(MemoryHoldings, store=memory_store),
    )
    erasures = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresErasures, manager=database_manager, policy=erasure_policy, clock=clock),
        memory=providers.Singleton(MemoryErasures, store=memory_store, policy=erasure_policy),
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
