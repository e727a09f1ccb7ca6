"""The composition root: which parts there are and how they are joined. No logic.

Any provider can be overridden, and everything built from it follows: a test replaces a repository or the clock, a
deployment the assistant. Each `Container(settings=…)` is a world of its own.
"""

from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.db.manager import DatabaseManager
from shopassist.db.memory.audit import MemoryLedgerAudit
from shopassist.db.memory.cache_epochs import MemoryCacheEpochs
from shopassist.db.memory.cached_answers import MemoryCachedAnswers
from shopassist.db.memory.catalog import MemoryCatalogRepository
from shopassist.db.memory.consents import MemoryConsentRepository
from shopassist.db.memory.credits import MemoryCreditRepository
from shopassist.db.memory.leases import MemoryLeases
from shopassist.db.memory.ledger import MemoryCreditLedger
from shopassist.db.memory.query_cache import MemoryCacheRepository
from shopassist.db.memory.replays import MemoryReplays
from shopassist.db.memory.store import MemoryStore
from shopassist.db.memory.unit_of_work import MemoryUnitOfWork
from shopassist.db.ports import RepositoryFactories, SystemClock
from shopassist.db.postgres.audit import PostgresLedgerAudit
from shopassist.db.postgres.cache_epochs import PostgresCacheEpochs
from shopassist.db.postgres.cached_answers import PostgresCachedAnswers
from shopassist.db.postgres.catalog import PostgresCatalogRepository
from shopassist.db.postgres.consents import PostgresConsentRepository
from shopassist.db.postgres.credits import PostgresCreditRepository
from shopassist.db.postgres.leases import PostgresLeases
from shopassist.db.postgres.ledger import PostgresCreditLedger
from shopassist.db.postgres.query_cache import PostgresCacheRepository
from shopassist.db.postgres.replays import PostgresReplays
from shopassist.db.postgres.unit_of_work import PostgresUnitOfWork
from shopassist.db.resilience.policy import Limits, Resilience
from shopassist.identity.trust import token_verifier
from shopassist.jobs import Job, Jobs
from shopassist.models.ledger import CreditPolicy
from shopassist.services.adjustments import AdjustmentService
from shopassist.services.availability import Availability
from shopassist.services.catalog import CatalogService
from shopassist.services.consent import UserConsentService
from shopassist.services.credits import CreditService
from shopassist.services.flights import Flights
from shopassist.services.health import HealthService
from shopassist.services.ledger_audit import LedgerAuditService
from shopassist.services.query import QueryService
from shopassist.services.query_cache import QueryCacheService
from shopassist.services.reply import Outcome
from shopassist.services.stale_answers import StaleAnswers
from shopassist.settings import Settings


class Container(containers.DeclarativeContainer):
    """Everything the product is made of."""

    settings = providers.Dependency(instance_of=Settings)
    storage = providers.Singleton(str, settings.provided.storage.storage.value)

    clock = providers.Singleton(SystemClock)
    credit_policy = providers.Singleton(
        CreditPolicy,
        max_guest_credits=settings.provided.credits.max_guest_credits,
        max_registered_credits=settings.provided.credits.max_registered_credits,
        reset_interval=settings.provided.credits.reset_interval,
        hold_lifetime=settings.provided.credits.hold_lifetime,
        retention_days=settings.provided.credits.retention_days,
    )

    limits = providers.Singleton(
        Limits,
        attempts=settings.provided.database.retry_attempts,
        retry_seconds=settings.provided.database.retry_timeout,
        hot_seconds=settings.provided.database.hot_timeout,
    )
    resilience = providers.Singleton(Resilience, limits=limits)
    database_manager = providers.Singleton(DatabaseManager, config=settings.provided.database, resilience=resilience)
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

    repositories: providers.Provider[RepositoryFactories[Any]] = providers.Factory(
        RepositoryFactories,
        credits=credit_repository.provider,
        consents=consent_repository.provider,
        cache=cache_repository.provider,
        catalog=catalog_repository.provider,
    )
    unit_of_work = providers.Selector(
        storage,
        postgres=providers.Factory(PostgresUnitOfWork, manager=database_manager, repositories=repositories),
        memory=providers.Factory(MemoryUnitOfWork, store=memory_store, repositories=repositories),
    )
    credit_ledger = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresCreditLedger, manager=database_manager, policy=credit_policy, clock=clock),
        memory=providers.Singleton(MemoryCreditLedger, store=memory_store, policy=credit_policy),
    )
    cached_answers = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresCachedAnswers, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryCachedAnswers, store=memory_store),
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
    audit = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresLedgerAudit, manager=database_manager),
        memory=providers.Singleton(MemoryLedgerAudit, store=memory_store),
    )
    leases = providers.Selector(
        storage,
        postgres=providers.Singleton(PostgresLeases, manager=database_manager, clock=clock),
        memory=providers.Singleton(MemoryLeases, store=memory_store),
    )

    credit_service = providers.Factory(
        CreditService, ledger=credit_ledger, unit_of_work=unit_of_work, policy=credit_policy
    )
    adjustment_service = providers.Factory(
        AdjustmentService, ledger=credit_ledger, replays=replays, unit_of_work=unit_of_work
    )
    ledger_audit = providers.Singleton(LedgerAuditService, audit=audit)
    consent_service = providers.Factory(UserConsentService, unit_of_work=unit_of_work, clock=clock)
    stale_answers = providers.Singleton(
        StaleAnswers,
        most_answers=providers.Selector(
            storage, postgres=settings.provided.cache.stale_answers, memory=providers.Object(0)
        ),
        most_bytes=settings.provided.cache.stale_bytes,
        longest=settings.provided.cache.stale_lifetime,
        validity=settings.provided.cache.validity,
    )
    availability = providers.Singleton(
        Availability,
        epochs=cache_epochs,
        answers=stale_answers,
        may_start_without=settings.provided.database.start_degraded,
        fatal_after_seconds=settings.provided.database.fatal_after_seconds,
    )
    query_cache_service = providers.Singleton(
        QueryCacheService,
        unit_of_work=unit_of_work,
        answers=cached_answers,
        epochs=cache_epochs,
        stale=stale_answers,
        clock=clock,
        validity=settings.provided.cache.validity,
    )

    catalog = providers.Factory(CatalogService, unit_of_work=unit_of_work)
    assistant = providers.Singleton(CatalogAssistant, catalog=catalog, settings=settings.provided.assistant)
    flights: providers.Provider[Flights[Outcome]] = providers.Singleton(Flights)
    query_service = providers.Factory(
        QueryService,
        cache=query_cache_service,
        credits_=credit_service,
        ledger=credit_ledger,
        replays=replays,
        flights=flights,
        stale=stale_answers,
        assistant=assistant,
        timeout_seconds=settings.provided.assistant.timeout_seconds,
    )

    shutdown = providers.Selector(
        storage, postgres=database_manager.provided.close.call(), memory=memory_store.provided.close.call()
    )
    token_verifier = providers.Singleton(token_verifier, settings=settings)
    health_service = providers.Factory(
        HealthService,
        storage=settings.provided.storage.storage,
        database=providers.Selector(storage, postgres=database_manager, memory=providers.Object(None)),
    )
    jobs = providers.Singleton(
        Jobs,
        leases=leases,
        jobs=providers.List(
            providers.Factory(Job, "void_expired_holds", timedelta(seconds=5), credit_ledger.provided.void_expired),
            providers.Factory(Job, "forget_idempotent_answers", timedelta(minutes=5), replays.provided.forget_expired),
            providers.Factory(Job, "reset_due_credits", timedelta(minutes=1), credit_service.provided.reset_credits),
            providers.Factory(
                Job, "fold_old_transactions", timedelta(days=1), credit_service.provided.fold_old_transactions
            ),
            providers.Factory(Job, "verify_ledger", timedelta(days=1), ledger_audit.provided.verify),
            providers.Factory(
                Job,
                "clear_expired_cache",
                timedelta(minutes=5),
                query_cache_service.provided.clear_expired_cache,
            ),
        ),
    )
