"""The composition root: which parts there are and how they are joined. No logic.

Any provider can be overridden, and everything built from it follows: a test replaces a repository or the clock, a
deployment the assistant. Each `Container(settings=…)` is a world of its own.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from dependency_injector import containers, providers

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.cache.redis import RedisAnswers, build_redis_answers
from shopassist.cache.service import QueryCacheService, StaleAnswers
from shopassist.catalog.service import CatalogService
from shopassist.consent.gate import ConsentGate
from shopassist.consent.notices import NoticeService, PublishedNoticeCache
from shopassist.consent.ports import ConsentCounters
from shopassist.consent.service import ConsentHistoryService, UserConsentService
from shopassist.credits.ports import LedgerCounters
from shopassist.credits.service import (
    AdjustmentService,
    CreditService,
    LedgerCompaction,
    LedgerReconciliationService,
)
from shopassist.db.ports import SystemClock
from shopassist.identity.caller import GuestSessions
from shopassist.identity.client_network import ClientNetworks
from shopassist.identity.issuers import token_verifier
from shopassist.identity.key_derivation import derive_key, derive_shared_cache_key
from shopassist.identity.rate_limits import RateCounters, RateLimits
from shopassist.maintenance.jobs import build_jobs
from shopassist.maintenance.scheduler import JobScheduler
from shopassist.metrics.registry import RequestMetrics
from shopassist.monitoring.health import Availability, HealthService
from shopassist.privacy.ports import ErasureCounters
from shopassist.privacy.service import ErasureService, ExportService, GuestMergeService
from shopassist.query.models import WorkOutcome
from shopassist.query.service import QueryService
from shopassist.query.single_flight import SingleFlight
from shopassist.rollout.container import RolloutStorage
from shopassist.rollout.controller import RolloutService
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


def prefer(tier: Any, otherwise: Any) -> Any:
    """Return `tier`, or `otherwise` when it is None."""
    return otherwise if tier is None else tier


class Container(containers.DeclarativeContainer):
    """Everything the product is made of."""

    settings = providers.Dependency(instance_of=Settings)
    clock = providers.Singleton(SystemClock)
    common = providers.Container(CommonParts, settings=settings, clock=clock)
    credit_policy = common.credit_policy
    user_hasher = common.user_hasher
    ledger_figures = providers.Singleton(LedgerCounters)
    consent_counters = providers.Singleton(ConsentCounters)
    erasure_counters = providers.Singleton(ErasureCounters)

    memory = providers.Container(MemoryStorage, common=common, ledger_figures=ledger_figures)
    mirror = providers.Container(MemoryStorage, common=common, ledger_figures=providers.Singleton(LedgerCounters))
    postgres = providers.Container(PostgresStorage, common=common, ledger_figures=ledger_figures)
    rollout_storage = providers.Container(
        RolloutStorage, settings=settings, memory=memory, mirror=mirror, postgres=postgres
    )
    storage = providers.Selector(
        settings.provided.storage.storage.value, memory=memory, postgres=postgres, rollout=rollout_storage
    )
    database_manager = postgres.database_manager
    resilience = postgres.resilience
    memory_store = memory.memory_store
    unit_of_work = port(storage, "unit_of_work")
    lagging_reads = port(storage, "lagging_reads")
    credit_ledger = port(storage, "credit_ledger")
    replays = port(storage, "replays")
    audit = port(storage, "audit")
    consent_lookup = port(storage, "consent_lookup")
    personal_data = port(storage, "personal_data")
    erasures = port(storage, "erasures")
    cached_answers = port(storage, "cached_answers")
    cache_epochs = port(storage, "cache_epochs")
    leases = port(storage, "leases")
    maintenance_runs = port(storage, "maintenance_runs")
    vacuum = port(storage, "vacuum")
    database = port(storage, "database")
    replica = port(storage, "replica")
    rollout = port(storage, "rollout")
    background_services = port(storage, "background_services")

    networks = providers.Singleton(
        ClientNetworks,
        key=providers.Callable(derive_key, settings, "client network"),
        trusted=settings.provided.server.trusted_proxies,
        loopback_counts=settings.provided.server.production,
    )
    guest_sessions = providers.Singleton(
        GuestSessions,
        key=providers.Callable(derive_key, settings, "guest session"),
        only_signed=settings.provided.guests.only_signed,
    )
    rate_counters = providers.Singleton(RateCounters)
    rate_limits = providers.Singleton(
        RateLimits,
        counters=rate_counters,
        questions=settings.provided.limits.questions_per_minute,
        reads=settings.provided.limits.reads_per_minute,
        network_factor=settings.provided.limits.network_factor,
    )

    shared_answers = providers.Singleton(
        build_redis_answers,
        url=settings.provided.shared_cache_url,
        stored=cached_answers,
        epochs=cache_epochs,
        key=providers.Callable(derive_shared_cache_key, settings),
        clock=clock,
    )

    credit_service = providers.Factory(
        CreditService,
        ledger=credit_ledger,
        unit_of_work=unit_of_work,
        policy=credit_policy,
        lagging_reads=lagging_reads,
    )
    adjustment_service = providers.Factory(
        AdjustmentService, ledger=credit_ledger, replays=replays, unit_of_work=unit_of_work
    )
    ledger_compaction = providers.Factory(LedgerCompaction, unit_of_work=unit_of_work, policy=credit_policy)
    ledger_audit = providers.Singleton(LedgerReconciliationService, reconciliation=audit)
    consent_service = providers.Factory(
        UserConsentService, unit_of_work=unit_of_work, lagging_reads=lagging_reads, counters=consent_counters
    )
    export_service = providers.Factory(
        ExportService, personal_data=personal_data, unit_of_work=unit_of_work, clock=clock
    )
    erasure_service = providers.Factory(
        ErasureService,
        erasures=erasures,
        personal_data=personal_data,
        hash_user_id=user_hasher,
        counters=erasure_counters,
    )
    guest_merge_service = providers.Factory(GuestMergeService, unit_of_work=unit_of_work)
    consent_history_service = providers.Factory(
        ConsentHistoryService, unit_of_work=unit_of_work, counters=consent_counters
    )
    published_notices = providers.Singleton(PublishedNoticeCache, read=consent_lookup.provided.list_published)
    notice_service = providers.Factory(
        NoticeService,
        unit_of_work=unit_of_work,
        published=published_notices,
        grace_hours=settings.provided.consent.grace_hours,
    )
    consent_gate = providers.Singleton(
        ConsentGate,
        lookup=consent_lookup,
        published=published_notices,
        history=consent_history_service,
        required=settings.provided.consent.required,
    )
    rollout_service = providers.Factory(RolloutService, rollout=rollout, unit_of_work=unit_of_work)
    stale_answers = providers.Singleton(
        StaleAnswers,
        max_answers=settings.provided.max_stale_answers,
        max_bytes=settings.provided.cache.stale_bytes,
        max_age=settings.provided.cache.stale_lifetime,
        validity=settings.provided.cache.validity,
    )
    availability = providers.Singleton(
        Availability,
        epochs=cache_epochs,
        answers=stale_answers,
        may_start_without=settings.provided.database.start_degraded,
        fatal_after_seconds=settings.provided.fatal_after_seconds,
    )
    query_cache_service = providers.Singleton(
        QueryCacheService,
        unit_of_work=unit_of_work,
        answers=providers.Callable(prefer, shared_answers, cached_answers),
        stored_answers=cached_answers,
        epochs=providers.Callable(prefer, shared_answers, cache_epochs),
        stale=stale_answers,
        clock=clock,
        validity=settings.provided.cache.validity,
        lagging_reads=lagging_reads,
    )

    catalog = providers.Factory(CatalogService, unit_of_work=unit_of_work)
    assistant = providers.Singleton(CatalogAssistant, catalog=catalog, settings=settings.provided.assistant)
    flights: providers.Provider[SingleFlight[WorkOutcome]] = providers.Singleton(SingleFlight)
    # The service is built for each request, and a chain of attributes is looked up slowly.
    question_seconds = providers.Singleton(float, settings.provided.assistant.timeout_seconds)
    query_service = providers.Factory(
        QueryService,
        cache=query_cache_service,
        credits_=credit_service,
        ledger=credit_ledger,
        replays=replays,
        flights=flights,
        stale=stale_answers,
        assistant=assistant,
        timeout_seconds=question_seconds,
    )

    shutdown = providers.Callable(close_all, shared_answers, storage.provided.close.call())
    request_figures = providers.Singleton(RequestMetrics)
    token_verifier = providers.Singleton(token_verifier, settings=settings)
    health_service = providers.Factory(HealthService, storage=settings.provided.storage.storage, database=database)
    jobs = providers.Singleton(
        JobScheduler,
        leases=leases,
        runs=maintenance_runs,
        jobs=providers.Factory(
            build_jobs,
            ledger=credit_ledger,
            replays=replays,
            runs=maintenance_runs,
            vacuum=vacuum,
            cache=query_cache_service,
            erasures=erasure_service,
            compaction=ledger_compaction,
            reconciliation=ledger_audit,
        ),
    )
