"""The composition root: which parts there are and how they are joined. No logic.

Any provider can be overridden, and everything built from it follows: a test replaces a repository or the clock, a
deployment the assistant. Each `Container(settings=…)` is a world of its own.
"""

from datetime import timedelta

from dependency_injector import providers

from shopassist.assistant.assistant import CatalogAssistant
from shopassist.audit.service import AdminAuditService
from shopassist.cache.fallback import StaleAnswers
from shopassist.cache.service import QueryCacheService
from shopassist.catalog.service import CatalogService
from shopassist.consent.gate import ConsentGate
from shopassist.consent.notices import NoticeService, PublishedNoticeCache
from shopassist.consent.purposes import ConsentHistoryService
from shopassist.consent.service import UserConsentService
from shopassist.credits.reconciliation import LedgerReconciliationService
from shopassist.credits.service import AdjustmentService, CreditService
from shopassist.identity.issuers import token_verifier
from shopassist.maintenance.jobs import MaintenanceJobs
from shopassist.maintenance.scheduler import Job, JobScheduler
from shopassist.metrics.registry import RequestMetrics
from shopassist.monitoring.health import Availability, HealthService
from shopassist.privacy.erasure import ErasureService
from shopassist.privacy.export import ExportService
from shopassist.privacy.guest_merge import GuestMergeService
from shopassist.query.responses import QueryOutcome
from shopassist.query.service import QueryService
from shopassist.query.single_flight import SingleFlight
from shopassist.rollout.controller import RolloutService
from shopassist.wiring.door import Door
from shopassist.wiring.sharing import closed
from shopassist.wiring.state import State


def job(name: str, housekeeping: providers.Provider[MaintenanceJobs], **every: float) -> providers.Provider[Job]:
    """The job of that name, which the method of that name does."""
    return providers.Factory(Job, name, timedelta(**every), getattr(housekeeping.provided, name))


class Container(Door):
    """Everything the product is made of."""

    credit_service = providers.Factory(
        CreditService,
        ledger=State.credit_ledger,
        unit_of_work=State.unit_of_work,
        policy=State.credit_policy,
        lagging_reads=State.lagging_reads,
    )
    adjustment_service = providers.Factory(
        AdjustmentService, ledger=State.credit_ledger, replays=State.replays, unit_of_work=State.unit_of_work
    )
    ledger_audit = providers.Singleton(LedgerReconciliationService, audit=State.audit)
    consent_service = providers.Factory(
        UserConsentService,
        unit_of_work=State.unit_of_work,
        lagging_reads=State.lagging_reads,
        counters=State.consent_counters,
    )
    export_service = providers.Factory(
        ExportService, personal_data=State.personal_data, unit_of_work=State.unit_of_work, clock=State.clock
    )
    erasure_service = providers.Factory(
        ErasureService,
        erasures=State.erasures,
        personal_data=State.personal_data,
        hash_user_id=State.user_hasher,
        counters=State.erasure_counters,
    )
    guest_merge_service = providers.Factory(GuestMergeService, unit_of_work=State.unit_of_work)
    consent_history_service = providers.Factory(
        ConsentHistoryService, unit_of_work=State.unit_of_work, counters=State.consent_counters
    )
    published_notices = providers.Singleton(PublishedNoticeCache, read=State.consent_lookup.provided.list_published)
    notice_service = providers.Factory(
        NoticeService,
        unit_of_work=State.unit_of_work,
        published=published_notices,
        grace_hours=State.settings.provided.consent.grace_hours,
    )
    consent_gate = providers.Singleton(
        ConsentGate,
        lookup=State.consent_lookup,
        published=published_notices,
        history=consent_history_service,
        required=State.settings.provided.consent.required,
    )
    rollout_service = providers.Factory(RolloutService, rollout=Door.rollout, unit_of_work=State.unit_of_work)
    admin_audit_service = providers.Factory(AdminAuditService, unit_of_work=State.unit_of_work)
    stale_answers = providers.Singleton(
        StaleAnswers,
        most_answers=providers.Selector(
            State.storage,
            postgres=State.settings.provided.cache.stale_answers,
            rollout=State.settings.provided.cache.stale_answers,
            memory=providers.Object(0),
        ),
        most_bytes=State.settings.provided.cache.stale_bytes,
        longest=State.settings.provided.cache.stale_lifetime,
        validity=State.settings.provided.cache.validity,
    )
    availability = providers.Singleton(
        Availability,
        epochs=State.cache_epochs,
        answers=stale_answers,
        may_start_without=State.settings.provided.database.start_degraded,
        fatal_after_seconds=providers.Selector(
            State.storage,
            postgres=State.settings.provided.database.fatal_after_seconds,
            memory=State.settings.provided.database.fatal_after_seconds,
            # Whoever is in memory has nobody else to answer them.
            rollout=providers.Object(None),
        ),
    )
    query_cache_service = providers.Singleton(
        QueryCacheService,
        unit_of_work=State.unit_of_work,
        answers=State.cached_answers,
        shared=Door.shared_answers,
        epochs=State.cache_epochs,
        stale=stale_answers,
        clock=State.clock,
        validity=State.settings.provided.cache.validity,
        lagging_reads=State.lagging_reads,
    )

    catalog = providers.Factory(CatalogService, unit_of_work=State.unit_of_work)
    assistant = providers.Singleton(CatalogAssistant, catalog=catalog, settings=State.settings.provided.assistant)
    flights: providers.Provider[SingleFlight[QueryOutcome]] = providers.Singleton(SingleFlight)
    # The service is built for each request, and a chain of attributes is looked up slowly.
    question_seconds = providers.Singleton(float, State.settings.provided.assistant.timeout_seconds)
    query_service = providers.Factory(
        QueryService,
        cache=query_cache_service,
        credits_=credit_service,
        ledger=State.credit_ledger,
        replays=State.replays,
        flights=flights,
        stale=stale_answers,
        assistant=assistant,
        timeout_seconds=question_seconds,
    )

    shutdown = providers.Callable(
        closed,
        Door.shared_answers.provided.close,
        providers.Selector(
            State.storage,
            postgres=State.database_manager.provided.close,
            memory=State.memory_store.provided.close,
            rollout=State.database_manager.provided.close,
        ),
    )
    request_figures = providers.Singleton(RequestMetrics)
    token_verifier = providers.Singleton(token_verifier, settings=State.settings)
    health_service = providers.Factory(
        HealthService,
        storage=State.settings.provided.storage.storage,
        database=State.database,
    )
    housekeeping = providers.Singleton(
        MaintenanceJobs,
        ledger=State.credit_ledger,
        replays=State.replays,
        guest_networks=State.guest_networks,
        runs=State.maintenance_runs,
        tables=State.vacuum,
        credits=credit_service,
        cache=query_cache_service,
        erasures=erasure_service,
        audit=ledger_audit,
    )
    jobs = providers.Singleton(
        JobScheduler,
        leases=State.leases,
        runs=State.maintenance_runs,
        jobs=providers.List(
            job("void_expired_holds", housekeeping, seconds=5),
            job("finish_erasures", housekeeping, seconds=10),
            job("reset_due_credits", housekeeping, minutes=1),
            job("forget_idempotent_answers", housekeeping, minutes=5),
            job("clear_expired_cache", housekeeping, minutes=5),
            job("forget_guest_networks", housekeeping, hours=1),
            job("forget_erased", housekeeping, hours=1),
            job("forget_runs", housekeeping, hours=1),
            job("vacuum", housekeeping, hours=1),
            job("fold_old_transactions", housekeeping, days=1),
            job("verify_ledger", housekeeping, days=1),
        ),
    )
