"""FastAPI dependencies: the caller, rate limits, idempotency key, services of the container."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

import structlog
from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import AfterValidator
from starlette.types import Scope

from shopassist.errors import AuthenticationError, InvalidTokenError, PermissionDeniedError
from shopassist.identity.caller import MISSING_VALUE, Caller, ClientNetworks, GuestSessions, require_session_id
from shopassist.identity.rate_limits import RateLimitKind, RequestQuota
from shopassist.settings import Settings
from shopassist.text import IDEMPOTENCY_KEY_LENGTH


def get_request_id() -> str | None:
    """Return the id of the current request."""
    request_id: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return request_id


def get_container(request: Request) -> Any:
    """Return the container of the app that serves `request`."""
    return request.app.state.container


def take_from_container(name: str) -> Callable[[Request], Awaitable[Any]]:
    """Return a dependency that takes the service `name` from the container of the app."""

    async def take(request: Request) -> Any:
        return getattr(get_container(request), name)()

    return take


SettingsDep = Annotated[Settings, Depends(take_from_container("settings"))]
GuestSessionsDep = Annotated[GuestSessions, Depends(take_from_container("guest_sessions"))]

# These two only describe the headers in OpenAPI; `identify_caller` reads them.
BEARER_SCHEME = HTTPBearer(
    auto_error=False, bearerFormat="JWT", description="An access token of the identity provider."
)
SESSION_SCHEME = APIKeyHeader(name="X-Session-ID", auto_error=False, description="A guest's session id.")
CALLER_SECURITY = [Depends(BEARER_SCHEME), Depends(SESSION_SCHEME)]
REGISTERED_SECURITY = [Depends(BEARER_SCHEME)]


async def identify_caller(request: Request) -> Caller:
    """Return the caller. An invalid token is refused even beside a valid session id."""
    request.scope["is_personal"] = True
    container, network = get_container(request), get_network(request)
    tokens = request.headers.getlist("authorization")
    if tokens:
        scheme, _, token = tokens[0].partition(" ")
        if len(tokens) > 1 or scheme.lower() != "bearer" or not token.strip():
            raise InvalidTokenError
        user: Caller = await container.token_verifier().verify(token.strip())
        return replace(user, network=network)
    sessions = request.headers.getlist("x-session-id")
    if not sessions:
        raise AuthenticationError
    guest: Caller = container.guest_sessions().verify(require_session_id(sessions[0]), network)
    return guest


def get_network(request: Request) -> str | None:
    """Return the keyed hash of the client's network; None where networks are not counted."""
    networks: ClientNetworks = get_container(request).client_networks()
    return networks.get_network(get_peer_address(request.scope), request.scope["headers"])


def create_quota(request: Request, kind: RateLimitKind, caller: Caller) -> RequestQuota:
    """Return the quota that the request is to use; the response headers will report it once it is consumed."""
    quota = RequestQuota(get_container(request).rate_limits(), kind, caller)
    request.scope["quota"] = quota
    return quota


async def get_rate_limited_caller(request: Request) -> Caller:
    """Return the caller after counting the request. Raises `RateLimitedError`."""
    caller = await identify_caller(request)
    create_quota(request, RateLimitKind.READS, caller).consume()
    return caller


CallerDep = Annotated[Caller, Depends(get_rate_limited_caller)]


async def require_registered(caller: CallerDep) -> Caller:
    """Return the caller. Raises `AuthenticationError` for a guest."""
    if caller.is_guest:
        raise AuthenticationError
    return caller


RegisteredDep = Annotated[Caller, Depends(require_registered)]


async def require_administrator(settings: SettingsDep, caller: RegisteredDep) -> Caller:
    """Return the caller. Raises `PermissionDeniedError` without the admin scope."""
    if settings.identity.admin_scope not in caller.scopes:
        raise PermissionDeniedError
    return caller


AdministratorDep = Annotated[Caller, Depends(require_administrator)]


def get_peer_address(scope: Scope) -> str | None:
    """Return the address of the connected peer: the client or the nearest proxy."""
    client = scope.get("client")
    return client[0] if client else None


def refuse_missing_value(key: str | None) -> str | None:
    """Return the key. Raises `ValueError` for the text of a missing value, which many requests would share."""
    if key is not None and MISSING_VALUE.fullmatch(key):
        raise ValueError("is empty or the text of a missing value, such as undefined or null")
    return key


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=IDEMPOTENCY_KEY_LENGTH,
        pattern="^[!-~]+$",
        description="The same key and request are answered once; kept for 24 hours.",
    ),
    AfterValidator(refuse_missing_value),
]
