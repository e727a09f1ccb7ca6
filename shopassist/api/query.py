"""`POST /api/query`: a question and its answer."""

from fastapi import APIRouter

from shopassist.api.dependencies import IDENTITY, CallerDep, QueryServiceDep
from shopassist.api.errors import IDENTITY_ERRORS, documented
from shopassist.errors import CreditsExhaustedError
from shopassist.models.query import QueryRequest, QueryResponse

router = APIRouter(prefix="/api", tags=["questions"])


@router.post("/query", dependencies=IDENTITY, responses=documented(*IDENTITY_ERRORS, CreditsExhaustedError))
async def ask(request: QueryRequest, caller: CallerDep, queries: QueryServiceDep) -> QueryResponse:
    """Ask for a product. An answer that is not from the cache costs one credit."""
    return await queries.answer(caller.user_id, caller.is_guest, request)
