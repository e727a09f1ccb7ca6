"""`POST /api/query`: a question and its answer."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from shopassist.api.consenting import AskingDep
from shopassist.api.dependencies import IDENTITY, QueryServiceDep, services
from shopassist.api.direct import DirectRoute, json_response
from shopassist.api.errors import BODY_ERRORS, GUEST_ERRORS, documented
from shopassist.api.limits import spend
from shopassist.db.rollout.asker import on_behalf_of
from shopassist.errors import ConsentRequiredError, CreditsExhaustedError, KeyInFlightError
from shopassist.identity.limits import Kind
from shopassist.models.credits import KEY_LENGTH
from shopassist.models.query import QueryRequest, QueryResponse

router = APIRouter(prefix="/api", tags=["questions"], route_class=DirectRoute)

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=KEY_LENGTH,
        pattern="^[!-~]+$",
        description="The same key and request are answered once; kept for 24 hours.",
    ),
]


@router.post(
    "/query",
    dependencies=IDENTITY,
    response_model=QueryResponse,
    responses=documented(*GUEST_ERRORS, *BODY_ERRORS, ConsentRequiredError, CreditsExhaustedError, KeyInFlightError),
)
async def ask(
    question: QueryRequest,
    request: Request,
    caller: AskingDep,
    queries: QueryServiceDep,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Ask for a product. An answer that is not from the cache costs one credit."""
    with on_behalf_of(caller.user_id):
        reply = await queries.answer(
            caller.user_id,
            caller.is_guest,
            question,
            idempotency_key,
            gone=lambda: disconnected(request),
            network=caller.network,
            admit=lambda: spend(request, services(request).rate_limits(), Kind.QUESTIONS, caller),
        )
    return json_response(reply.response, {"Idempotent-Replayed": "true"} if reply.replayed else None)


async def disconnected(request: Request) -> None:
    """Return when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
