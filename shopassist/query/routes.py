"""`POST /api/query`."""

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

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    quota = create_quota(request, RateLimitKind.QUESTIONS, caller)
    reply = await queries.answer(
        caller.user_id, caller.is_guest, question, idempotency_key, wait_for_disconnect, caller.network, quota
    )
    return build_json_response(reply.response, {"Idempotent-Replayed": "true"} if reply.replayed else None)
