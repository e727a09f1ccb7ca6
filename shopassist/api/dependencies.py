"""FastAPI dependencies: the caller, rate limits, idempotency key, services of the container."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import structlog
from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.types import Scope

from shopassist.errors import AuthenticationError, InvalidTokenError, PermissionDeniedError, RateLimitedError
from shopassist.identity.caller import Caller
from shopassist.identity.rate_limits import RateLimitKind, RateLimits
from shopassist.monitoring.services import Services
from shopassist.text import IDEMPOTENCY_KEY_LENGTH


def get_request_id() -> str | None:
    """The id of the request that is being served."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


def get_container(request: Request) -> Services:
    """The container of the app that serves `request`."""
    container: Services = request.app.state.container
    return container


def take_from_container(name: str) -> Callable[[Request], Awaitable[Any]]:
    """Return a dependency that takes the service `name` from the container of the app."""

    async def take(request: Request) -> Any:
        return getattr(request.app.state.container, name)()

    return take


# These two only describe the headers in OpenAPI; `identify` reads them.
BEARER_SCHEME = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="An access token of the identity provider."
)
SESSION_SCHEME = APIKeyHeader(name="X-Session-ID", auto_error=False, description="A guest's session id.")


async def identify_caller(request: Request) -> Caller:
    """The caller. A token that does not verify is refused even beside a session id."""
    container = get_container(request)
    network = container.networks().of(get_peer_address(request.scope), request.scope["headers"])
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


async def get_rate_limited_caller(request: Request) -> Caller:
    """The caller, whose request is counted. Raises `RateLimitedError`."""
    caller = await identify_caller(request)
    await consume_quota(request, get_container(request).rate_limits(), RateLimitKind.READS, caller)
    return caller


CallerDep = Annotated[Caller, Depends(get_rate_limited_caller)]


async def require_registered(caller: CallerDep) -> Caller:
    """A registered user; guests have no such thing as what is asked for."""
    if caller.is_guest:
        raise AuthenticationError
    return caller


RegisteredDep = Annotated[Caller, Depends(require_registered)]


async def require_administrator(request: Request, caller: RegisteredDep) -> Caller:
    """A registered user with the admin scope."""
    if get_container(request).settings().identity.admin_scope not in caller.scopes:
        raise PermissionDeniedError
    return caller


AdministratorDep = Annotated[Caller, Depends(require_administrator)]

CALLER_SECURITY = [Depends(BEARER_SCHEME), Depends(SESSION_SCHEME)]
REGISTERED_SECURITY = [Depends(BEARER_SCHEME)]


async def consume_quota(request: Request, limits: RateLimits, kind: RateLimitKind, caller: Caller) -> None:
    """Count a request of the caller; the answer will say what is left. Raises `RateLimitedError`."""
    quota = await limits.spend(kind, caller)
    request.scope["quota"] = quota
    if quota.refused:
        raise RateLimitedError(quota.seconds)


def get_peer_address(scope: Scope) -> str | None:
    """The address of whoever is connected."""
    client = scope.get("client")
    return client[0] if client else None


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=IDEMPOTENCY_KEY_LENGTH,
        pattern="^[!-~]+$",
        description="The same key and request are answered once; kept for 24 hours.",
    ),
]
