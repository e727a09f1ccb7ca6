"""`POST /api/query`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from shopassist.api.dependencies import CALLER_SECURITY, IdempotencyKey, create_quota, take_from_container
from shopassist.api.error_handlers import BODY_ERRORS, GUEST_ERRORS, document_errors
from shopassist.api.fast_route import FastRoute, build_json_response
from shopassist.consent.routes import ConsentingCallerDep
from shopassist.errors import ConsentRequiredError, CreditsExhaustedError, KeyInFlightError
from shopassist.identity.rate_limits import RateLimitKind
from shopassist.query.models import QueryRequest, QueryResponse
from shopassist.query.service import QueryService
from shopassist.query.single_flight import consume_exception

WATCH_DELAY_SECONDS = 0.05
"""Time before a request is watched for a disconnect: most are answered earlier, and watching has a cost."""

QueryServiceDep = Annotated[QueryService, Depends(take_from_container("query_service"))]

router = APIRouter(prefix="/api", tags=["questions"], route_class=FastRoute)


@router.post(
    "/query",
    dependencies=CALLER_SECURITY,
    response_model=QueryResponse,
    responses=document_errors(
        *GUEST_ERRORS, *BODY_ERRORS, ConsentRequiredError, CreditsExhaustedError, KeyInFlightError
    ),
)
async def ask(
    question: QueryRequest,
    request: Request,
    caller: ConsentingCallerDep,
    queries: QueryServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask for a product. An answer that is not from the cache costs one credit."""
    quota = create_quota(request, RateLimitKind.QUESTIONS, caller)
    with watch_disconnect(request) as disconnected:
        reply = await queries.answer(
            caller.user_id, caller.is_guest, question, idempotency_key, disconnected, caller.network, quota
        )
    return build_json_response(reply.response, {"Idempotent-Replayed": "true"} if reply.replayed else None)


@contextmanager
def watch_disconnect(request: Request) -> Iterator[asyncio.Future[None]]:
    """Yield a future that is done once the client has disconnected."""
    loop = asyncio.get_running_loop()
    disconnected: asyncio.Future[None] = loop.create_future()
    watch: asyncio.Task[None] | None = None

    async def wait_for_disconnect() -> None:
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        finally:
            disconnected.set_result(None)

    def start() -> None:
        nonlocal watch
        watch = asyncio.create_task(wait_for_disconnect())
        watch.add_done_callback(consume_exception)

    timer = loop.call_later(WATCH_DELAY_SECONDS, start)
    try:
        yield disconnected
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()
