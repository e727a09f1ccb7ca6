"""Who asks and decides, where consent matters: callers whose browser's privacy signal has been heeded."""

from typing import Annotated

import structlog
from fastapi import Depends, Request

from shopassist.api.dependencies import identify, services
from shopassist.identity.caller import Caller
from shopassist.models.consent_history import ROUTE_LENGTH, ConsentSource, Origin, Subject

SIGNAL = "Sec-GPC"
"""Global Privacy Control, in a browser's own words."""


def request_id() -> str | None:
    """The id of the request that is being served."""
    found: str | None = structlog.contextvars.get_contextvars().get("request_id")
    return found


def origin(request: Request, source: ConsentSource) -> Origin:
    """How what the request says reached us."""
    route = f"{request.method} {getattr(request.scope.get('route'), 'path', request.url.path)}"
    return Origin(source, route[:ROUTE_LENGTH], request_id(), has_signal(request))


def has_signal(request: Request) -> bool:
    """Whether the browser says no to what its user did not ask for."""
    return request.headers.get(SIGNAL) == "1"


def subject_of(caller: Caller) -> Subject:
    """The caller, as consent knows them."""
    return Subject(caller.user_id, caller.is_guest)


async def asking(request: Request) -> Caller:
    """A caller who may ask: one who agreed to the terms, where that is required.

    Raises `ConsentRequiredError` for others.
    """
    caller = await identify(request)
    gate = services(request).consent_gate()
    if gate.required or has_signal(request):
        await gate.admit(subject_of(caller), origin(request, ConsentSource.CONSENTS))
    return caller


AskingDep = Annotated[Caller, Depends(asking)]
