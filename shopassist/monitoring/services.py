"""Protocol of the container's services that the app, the server and monitoring use."""

from collections.abc import Awaitable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from shopassist.audit.service import AdminAuditService
from shopassist.cache.fallback import StaleAnswers
from shopassist.cache.redis import RedisAnswers
from shopassist.cache.service import QueryCacheService
from shopassist.consent.gate import ConsentGate
from shopassist.consent.notices import NoticeService
from shopassist.consent.ports import ConsentCounters
from shopassist.consent.service import ConsentHistoryService, UserConsentService
from shopassist.credits.ports import LedgerCounters
from shopassist.credits.reconciliation import LedgerReconciliationService
from shopassist.credits.service import AdjustmentService, CreditService
from shopassist.db.database import DatabaseManager
from shopassist.db.replica import Replica
from shopassist.db.resilience import Resilience
from shopassist.identity.client_network import ClientNetworks
from shopassist.identity.guests import GuestSessions
from shopassist.identity.rate_limits import RateLimits
from shopassist.identity.tokens import TokenVerifier
from shopassist.maintenance.scheduler import JobScheduler
from shopassist.metrics.registry import MetricFamily, RequestMetrics
from shopassist.monitoring.health import Availability, HealthService
from shopassist.privacy.erasure import ErasureService
from shopassist.privacy.export import ExportService
from shopassist.privacy.guest_merge import GuestMergeService
from shopassist.privacy.ports import ErasureCounters
from shopassist.query.responses import QueryOutcome
from shopassist.query.service import QueryService
from shopassist.query.single_flight import SingleFlight
from shopassist.settings import Settings


class BackgroundService(Protocol):
    """A part of the container that works while the app serves."""

    async def begin(self) -> None:
        """Prepare before the first request. Raises `StartupError`."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Work for the length of the block."""

    def collect_metrics(self) -> Iterable[MetricFamily]:
        """Return the metrics of this part."""


class Services(Protocol):
    """What the API takes from the container."""

    def settings(self) -> Settings: ...

    def credit_service(self) -> CreditService: ...

    def adjustment_service(self) -> AdjustmentService: ...

    def ledger_audit(self) -> LedgerReconciliationService: ...

    def consent_service(self) -> UserConsentService: ...

    def export_service(self) -> ExportService: ...

    def erasure_service(self) -> ErasureService: ...

    def guest_merge_service(self) -> GuestMergeService: ...

    def consent_history_service(self) -> ConsentHistoryService: ...

    def consent_gate(self) -> ConsentGate: ...

    def notice_service(self) -> NoticeService: ...

    def admin_audit_service(self) -> AdminAuditService: ...

    def query_cache_service(self) -> QueryCacheService: ...

    def query_service(self) -> QueryService: ...

    def flights(self) -> SingleFlight[QueryOutcome]: ...

    def availability(self) -> Availability: ...

    def stale_answers(self) -> StaleAnswers: ...

    def shared_answers(self) -> RedisAnswers: ...

    def health_service(self) -> HealthService: ...

    def resilience(self) -> Resilience: ...

    def replica(self) -> Replica: ...

    def background_services(self) -> list[BackgroundService]: ...

    def database(self) -> DatabaseManager | None: ...

    def ledger_figures(self) -> LedgerCounters: ...

    def consent_counters(self) -> ConsentCounters: ...

    def erasure_counters(self) -> ErasureCounters: ...

    def request_figures(self) -> RequestMetrics: ...

    def token_verifier(self) -> TokenVerifier: ...

    def guest_sessions(self) -> GuestSessions: ...

    def networks(self) -> ClientNetworks: ...

    def rate_limits(self) -> RateLimits: ...

    def jobs(self) -> JobScheduler: ...

    def shutdown(self) -> Awaitable[None]: ...
