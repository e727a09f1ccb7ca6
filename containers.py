"""The composition root: which parts there are and how they are joined. No logic.

Any provider can be overridden, and everything built from it follows: a test replaces a repository or the clock, a
deployment the assistant. Each `Container(settings=…)` is a world of its own.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from dependency_injector import containers, providers

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.cache.redis import RedisAnswers, build_redis_answers
from shopassist.cache.service import QueryCacheService, StaleAnswers
from shopassist.consent.notices import ConsentGate, NoticeService, PublishedNoticeCache
from shopassist.consent.ports import ConsentCounters
from shopassist.consent.service import ConsentHistoryService, UserConsentService
from shopassist.credits.ports import LedgerCounters
from shopassist.credits.service import AdjustmentService, CreditService, LedgerCompaction, LedgerReconciliationService
from shopassist.db.ports import SystemClock
from shopassist.identity.caller import ClientNetworks, GuestSessions
from shopassist.identity.key_derivation import derive_key
from shopassist.identity.rate_limits import RateLimits
from shopassist.identity.tokens import token_verifier
from shopassist.maintenance.scheduler import JobScheduler, build_jobs
from shopassist.metrics import RequestMetrics
from shopassist.monitoring.health import Availability
from shopassist.privacy.service import ErasureService, ExportService, GuestMergeService
from shopassist.query.service import QueryService, SingleFlight
from shopassist.rollout.routed_ports import RolloutStorage
from shopassist.settings import Settings
from shopassist.storage.common import CommonParts
from shopassist.storage.memory import MemoryStorage
from shopassist.storage.postgres import PostgresStorage


def port(storage: providers.Provider[Any], name: str) -> providers.Provider[Any]:
    """Return the provider of the port `name` of the storage that was chosen."""
    return providers.Singleton(getattr(storage.provided, name).call())


async def close_all(shared_answers: RedisAnswers | None, close_storage: Callable[[], Awaitable[None]]) -> None:
    """Close the Redis tier, if there is one, and the storage."""
    if shared_answers is not None:
        await shared_answers.close()
    await close_storage()


class Container(containers.DeclarativeContainer):
    """Everything the product is made of. Arguments stand in the order of the constructors' parameters."""

    settings = providers.Dependency(instance_of=Settings)
    config = settings.provided
    clock = providers.Singleton(SystemClock)
    common = providers.Container(CommonParts, settings=settings, clock=clock)
    credit_policy = common.credit_policy
    user_hasher = common.user_hasher
    ledger_counters = providers.Singleton(LedgerCounters)
    consent_counters = providers.Singleton(ConsentCounters)
    erasure_counters: providers.Provider[Counter[str]] = providers.Singleton(Counter)
    request_metrics = providers.Singleton(RequestMetrics)

    # Storage: two containers with the same attributes, a rollout over both, and one selector.
    memory = providers.Container(MemoryStorage, common=common, ledger_counters=ledger_counters)
    postgres = providers.Container(PostgresStorage, common=common, ledger_counters=ledger_counters)
    rollout_storage = providers.Container(RolloutStorage, settings=settings, memory=memory, postgres=postgres)
    storage = providers.Selector(
        config.storage.storage.value, memory=memory, postgres=postgres, rollout=rollout_storage
    )
    database_manager = postgres.database_manager
    resilience = postgres.resilience
    memory_store = memory.memory_store
    unit_of_work = port(storage, "unit_of_work")
    replica_reads = port(storage, "replica_reads")
    credit_ledger = port(storage, "credit_ledger")
    replays = port(storage, "replays")
    audit = port(storage, "audit")
    consent_lookup = port(storage, "consent_lookup")
    personal_data = port(storage, "personal_data")
    erasures = port(storage, "erasures")
    cached_answers = port(storage, "cached_answers")
    leases = port(storage, "leases")
    maintenance_runs = port(storage, "maintenance_runs")
    vacuum = port(storage, "vacuum")
    database = port(storage, "database")
    replica = port(storage, "replica")
    rollout = port(storage, "rollout")
    background_services = port(storage, "background_services")

    # Callers: their network, their identity and their limits.
    network_key = providers.Callable(derive_key, settings, "client network")
    client_networks = providers.Singleton(
        ClientNetworks, network_key, config.server.trusted_proxies, config.server.production
    )
    session_key = providers.Callable(derive_key, settings, "guest session")
    guest_sessions = providers.Singleton(GuestSessions, session_key, config.guests.only_signed)
    rate_limits = providers.Singleton(
        RateLimits,
        config.limits.questions_per_minute,
        config.limits.reads_per_minute,
        config.limits.network_factor,
    )
    token_verifier = providers.Singleton(token_verifier, settings)

    # Credits, consent and privacy.
    credit_service = providers.Factory(CreditService, credit_ledger, replica_reads, credit_policy)
    adjustment_service = providers.Factory(AdjustmentService, credit_ledger, replays, unit_of_work)
    ledger_compaction = providers.Factory(LedgerCompaction, unit_of_work, credit_policy)
    ledger_reconciliation = providers.Singleton(LedgerReconciliationService, audit)
    consent_service = providers.Factory(UserConsentService, unit_of_work, replica_reads, consent_counters)
    consent_history_service = providers.Factory(ConsentHistoryService, unit_of_work, consent_counters)
    published_notices = providers.Singleton(PublishedNoticeCache, consent_lookup.provided.list_published)
    notice_service = providers.Factory(NoticeService, unit_of_work, published_notices, config.consent.grace_hours)
    consent_gate = providers.Singleton(
        ConsentGate, consent_lookup, published_notices, consent_history_service, config.consent.required
    )
    export_service = providers.Factory(ExportService, personal_data, unit_of_work, clock)
    erasure_service = providers.Factory(ErasureService, erasures, personal_data, user_hasher, erasure_counters)
    guest_merge_service = providers.Factory(GuestMergeService, unit_of_work)

    # Stored answers: the process's own copies, the tier in Redis, the database.
    shared_answers = providers.Singleton(build_redis_answers, settings, cached_answers, clock)
    stale_answers = providers.Singleton(
        StaleAnswers,
        config.max_stale_answers,
        config.cache.stale_bytes,
        config.cache.stale_lifetime,
        config.cache.validity,
    )
    query_cache_service = providers.Singleton(
        QueryCacheService,
        unit_of_work=unit_of_work,
        stored=cached_answers,
        shared=shared_answers,
        stale=stale_answers,
        clock=clock,
        validity=config.cache.validity,
        replica_reads=replica_reads,
    )

    # Questions.
    assistant = providers.Singleton(CatalogAssistant, unit_of_work, config.assistant)
    single_flight = providers.Singleton(SingleFlight)
    # The service is built for each request, and a chain of attributes is looked up slowly.
    question_seconds = providers.Singleton(float, config.assistant.timeout_seconds)
    query_service = providers.Factory(
        QueryService,
        cache=query_cache_service,
        credits_=credit_service,
        ledger=credit_ledger,
        replays=replays,
        flights=single_flight,
        stale=stale_answers,
        assistant=assistant,
        timeout_seconds=question_seconds,
    )

    # Health, scheduled jobs and shutdown.
    availability = providers.Singleton(
        Availability,
        cached_answers,
        stale_answers,
        database,
        config.database.start_degraded,
        config.fatal_after_seconds,
    )
    scheduled_jobs = providers.Factory(
        build_jobs,
        ledger=credit_ledger,
        replays=replays,
        runs=maintenance_runs,
        vacuum=vacuum,
        cache=query_cache_service,
        erasures=erasure_service,
        compaction=ledger_compaction,
        reconciliation=ledger_reconciliation,
    )
    jobs = providers.Singleton(JobScheduler, leases, scheduled_jobs, maintenance_runs)
    shutdown = providers.Callable(close_all, shared_answers, storage.provided.close.call())
