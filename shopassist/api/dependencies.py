"""What endpoints take: services from the container, and who is asking.

Dependencies are async closures over `request.app.state.container`: half the cost of `Provide` markers, and two apps in
one process keep to their own containers.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer

from shopassist.api.limits import spend
from shopassist.api.security_headers import peer_of
from shopassist.db.manager import DatabaseManager
from shopassist.db.redis.answers import RedisAnswers
from shopassist.db.replica import Replica
from shopassist.db.resilience.policy import Resilience
from shopassist.db.rollout.control import Rollout
from shopassist.errors import AuthenticationError, InvalidTokenError, PermissionDeniedError
from shopassist.identity.caller import Caller
from shopassist.identity.guests import GuestSessions
from shopassist.identity.limits import Kind, RateLimits
from shopassist.identity.networks import Networks
from shopassist.identity.tokens import TokenVerifier
from shopassist.jobs import Jobs
from shopassist.models.ledger import LedgerFigures
from shopassist.models.privacy_figures import PrivacyFigures
from shopassist.services.adjustments import AdjustmentService
from shopassist.services.admin_audit import AdminAuditService
from shopassist.services.availability import Availability
from shopassist.services.consent import UserConsentService
from shopassist.services.consent_gate import ConsentGate
from shopassist.services.consent_history import ConsentHistoryService
from shopassist.services.credits import CreditService
from shopassist.services.erasure import ErasureService
from shopassist.services.export import ExportService
from shopassist.services.flights import Flights
from shopassist.services.guest_merge import GuestMergeService
from shopassist.services.health import HealthService
from shopassist.services.ledger_audit import LedgerAuditService
from shopassist.services.notices import NoticeService
from shopassist.services.query import QueryService
from shopassist.services.query_cache import QueryCacheService
from shopassist.services.reply import Outcome
from shopassist.services.rollout import RolloutService
from shopassist.services.stale_answers import StaleAnswers
from shopassist.settings import Settings
from shopassist.telemetry.figures import RequestFigures


class Services(Protocol):
    """What the API takes from the container."""

    def settings(self) -> Settings: ...

    def credit_service(self) -> CreditService: ...

    def adjustment_service(self) -> AdjustmentService: ...

    def ledger_audit(self) -> LedgerAuditService: ...

    def consent_service(self) -> UserConsentService: ...

    def export_service(self) -> ExportService: ...

    def erasure_service(self) -> ErasureService: ...

    def guest_merge_service(self) -> GuestMergeService: ...

    def consent_history(self) -> ConsentHistoryService: ...

    def consent_gate(self) -> ConsentGate: ...

    def notice_service(self) -> NoticeService: ...

    def admin_audit_service(self) -> AdminAuditService: ...

    def query_cache_service(self) -> QueryCacheService: ...

    def query_service(self) -> QueryService: ...

    def flights(self) -> Flights[Outcome]: ...

    def availability(self) -> Availability: ...

    def rollout_service(self) -> RolloutService: ...

    def stale_answers(self) -> StaleAnswers: ...

    def shared_answers(self) -> RedisAnswers: ...

    def health_service(self) -> HealthService: ...

    def resilience(self) -> Resilience: ...

    def replica(self) -> Replica: ...

    def rollout(self) -> Rollout | None: ...

    def database(self) -> DatabaseManager | None: ...

    def ledger_figures(self) -> LedgerFigures: ...

    def privacy_figures(self) -> PrivacyFigures: ...

    def request_figures(self) -> RequestFigures: ...

    def token_verifier(self) -> TokenVerifier: ...

    def guest_sessions(self) -> GuestSessions: ...

    def networks(self) -> Networks: ...

    def rate_limits(self) -> RateLimits: ...

    def jobs(self) -> Jobs: ...

    def shutdown(self) -> Awaitable[None]: ...


def services(request: Request) -> Services:
    """The container of the app that serves `request`."""
    container: Services = request.app.state.container
    return container


def _from_container(name: str) -> Callable[[Request], Awaitable[Any]]:
    async def take(request: Request) -> Any:
        return getattr(request.app.state.container, name)()

    return take


CreditServiceDep = Annotated[CreditService, Depends(_from_container("credit_service"))]
AdjustmentServiceDep = Annotated[AdjustmentService, Depends(_from_container("adjustment_service"))]
ConsentServiceDep = Annotated[UserConsentService, Depends(_from_container("consent_service"))]
ExportServiceDep = Annotated[ExportService, Depends(_from_container("export_service"))]
ErasureServiceDep = Annotated[ErasureService, Depends(_from_container("erasure_service"))]
GuestMergeServiceDep = Annotated[GuestMergeService, Depends(_from_container("guest_merge_service"))]
ConsentHistoryDep = Annotated[ConsentHistoryService, Depends(_from_container("consent_history"))]
NoticeServiceDep = Annotated[NoticeService, Depends(_from_container("notice_service"))]
AdminAuditDep = Annotated[AdminAuditService, Depends(_from_container("admin_audit_service"))]
QueryServiceDep = Annotated[QueryService, Depends(_from_container("query_service"))]
RolloutServiceDep = Annotated[RolloutService, Depends(_from_container("rollout_service"))]
HealthServiceDep = Annotated[HealthService, Depends(_from_container("health_service"))]

# These two only describe the headers in OpenAPI; `identify` reads them.
BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An access token of the identity provider.")
SESSION = APIKeyHeader(name="X-Session-ID", auto_error=False, description="A guest's session id.")


async def identify(request: Request) -> Caller:
    """The caller. A token that does not verify is refused even beside a session id."""
    container = services(request)
    network = container.networks().of(peer_of(request.scope), request.scope["headers"])
    tokens = request.headers.getlist("authorization")
    if tokens:
        scheme, _, token = tokens[0].partition(" ")
        if len(tokens) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise InvalidTokenError
        return replace(await container.token_verifier().verify(token.strip()), network=network)
    sessions = request.headers.getlist("x-session-id")
    if not sessions or not sessions[0]:
        raise AuthenticationError
    return container.guest_sessions().caller(sessions[0], network)


async def admitted(request: Request) -> Caller:
    """The caller, whose request is counted. Raises `RateLimitedError`."""
    caller = await identify(request)
    await spend(request, services(request).rate_limits(), Kind.READS, caller)
    return caller


CallerDep = Annotated[Caller, Depends(admitted)]


async def registered(caller: CallerDep) -> Caller:
    """A registered user; guests have no such thing as what is asked for."""
    if caller.is_guest:
        raise AuthenticationError
    return caller


RegisteredDep = Annotated[Caller, Depends(registered)]


async def administrator(request: Request, caller: RegisteredDep) -> Caller:
    """A registered user with the admin scope."""
    if services(request).settings().identity.admin_scope not in caller.scopes:
        raise PermissionDeniedError
    return caller


AdministratorDep = Annotated[Caller, Depends(administrator)]

IDENTITY = [Depends(BEARER), Depends(SESSION)]
REGISTERED = [Depends(BEARER)]
