"""A question: look in the cache; hold a credit; ask the assistant; settle and store, or void and say so."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import structlog

from shopassist.assistant.port import Assistant
from shopassist.db.ports import CreditLedger
from shopassist.errors import CreditsExhaustedError, ShopAssistError
from shopassist.models import UserCredits
from shopassist.models.query import (
    Answer,
    ConversationContext,
    ConversationMessage,
    QueryMetadata,
    QueryRequest,
    QueryResponse,
)
from shopassist.services.credits import CreditService
from shopassist.services.query_cache import QueryCacheService

logger = structlog.get_logger(__name__)

COST = 1
"""Credits that one message costs."""

FAILED = "The assistant could not answer this time. Nothing was charged; please try again."


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer and how it came about."""

    answer: Answer
    account: UserCredits
    cached: bool = False
    charged: int = 0
    error: str | None = None


class QueryService:
    """Answers shoppers' questions and charges for those it could answer."""

    def __init__(
        self,
        cache: QueryCacheService,
        credits_: CreditService,
        ledger: CreditLedger,
        assistant: Assistant,
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` bounds the assistant's work on one question."""
        self._cache = cache
        self._credits = credits_
        self._ledger = ledger
        self._assistant = assistant
        self._timeout_seconds = timeout_seconds

    async def answer(self, user_id: str, is_guest: bool, request: QueryRequest) -> QueryResponse:
        """The answer to `request`.

        Raises `CreditsExhaustedError` when it is not cached and no credit is left, `SessionRefusedError` when a guest
        names a registered account.
        """
        context = earlier(request)
        query_hash = self._cache.generate_query_hash(request.query, canonical(context))
        stored = await self._cache.get_cached_result(query_hash)
        if stored is not None:
            account = await self._credits.own_account(user_id, is_guest)
            return self._response(request.query, Outcome(Answer.model_validate(stored), account, cached=True))
        hold_id = uuid4()
        account = await self._hold(user_id, is_guest, hold_id)
        answer = await self._ask(request.query, context, hold_id, account)
        return self._response(request.query, await self._close(hold_id, account, answer, query_hash))

    async def _hold(self, user_id: str, is_guest: bool, hold_id: UUID) -> UserCredits:
        grant = await self._ledger.hold(user_id, is_guest, COST, hold_id)
        if not grant.granted:
            account = await self._credits.own_account(user_id, is_guest)
            if account.available_credits < COST:
                raise self._exhausted(account)
            grant = await self._ledger.hold(user_id, is_guest, COST, hold_id)
        if not grant.granted:
            raise self._exhausted(grant.account)
        return grant.account

    async def _ask(
        self, query: str, context: ConversationContext, hold_id: UUID, account: UserCredits
    ) -> Answer | None:
        """The assistant's answer, or None when it failed or took too long; a caller who leaves gets the credit back."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._assistant.answer(query, context)
        except asyncio.CancelledError:
            await asyncio.shield(self._ledger.void(hold_id, account.user_id))
            raise
        except Exception as failure:  # noqa: BLE001 - whatever failed, the credit goes back
            logger.warning("assistant_failed", error=type(failure).__name__)
            return None

    async def _close(self, hold_id: UUID, account: UserCredits, answer: Answer | None, query_hash: str) -> Outcome:
        if answer is not None and answer.chargeable:
            to_store = self._cache.to_store(query_hash, answer.model_dump(mode="json"))
            settled = await self._ledger.settle(hold_id, account.user_id, "Credit deducted for message", to_store)
            return Outcome(answer, account, charged=COST if settled else 0)
        if await self._ledger.void(hold_id, account.user_id):
            account.available_credits += COST
        if answer is None:
            return Outcome(Answer(recommendations_summary=FAILED, degraded=True), account, error=FAILED)
        return Outcome(answer, account)

    def _exhausted(self, account: UserCredits) -> ShopAssistError:
        status = self._credits.status_of(account)
        when = status.next_reset_time
        description = (
            "You have used all your guest credits. Log in to get more."
            if when is None
            else f"You have used all your credits. They come back at {when:%Y-%m-%d %H:%M} UTC."
        )
        return CreditsExhaustedError(
            description,
            available_credits=status.available_credits,
            max_credits=status.max_credits,
            is_guest=status.is_guest,
            error_description=description,
        )

    def _response(self, query: str, outcome: Outcome) -> QueryResponse:
        status: dict[str, Any] = self._credits.status_of(outcome.account).model_dump()
        return QueryResponse(
            query=query,
            products=outcome.answer.products,
            recommendations_summary=outcome.answer.recommendations_summary,
            error=outcome.error,
            cached=outcome.cached,
            metadata=QueryMetadata(
                cached=outcome.cached,
                cache_hit=outcome.cached,
                charged=outcome.charged,
                user_id=outcome.account.user_id,
                near_misses=outcome.answer.near_misses,
                criteria=outcome.answer.criteria,
                **status,
            ),
        )


def earlier(request: QueryRequest) -> ConversationContext:
    """What was said before the question, whichever way the client sends it."""
    context = request.conversation_context or ConversationContext()
    messages = list(context.messages or request.conversation_history or [])
    if messages and messages[-1].sender == "user" and messages[-1].text.strip() == request.query.strip():
        messages.pop()
    if not messages and context.last_query and context.last_query.strip() != request.query.strip():
        messages = [ConversationMessage(text=context.last_query, sender="user")]
    return ConversationContext(messages=messages, last_product_criteria=context.last_product_criteria)


def canonical(context: ConversationContext) -> str | None:
    """The part of a context that an answer depends on, always written the same way; None when there is none."""
    criteria = context.last_product_criteria
    if not context.messages and criteria is None:
        return None
    return json.dumps(
        {
            "criteria": criteria and criteria.model_dump(mode="json"),
            "messages": [[message.sender, message.text] for message in context.messages],
        },
        sort_keys=True,
        separators=(",", ":"),
    )
