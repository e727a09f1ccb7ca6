"""Request, outcome and response types of the query service; the context that an answer depends on."""

import json
from dataclasses import dataclass

from shopassist.credits.models import UserCredits
from shopassist.credits.ports import IdempotencyRecord
from shopassist.credits.service import CreditService
from shopassist.errors import CreditsExhaustedError
from shopassist.query.models import (
    Answer,
    ConversationContext,
    ConversationMessage,
    QueryMetadata,
    QueryRequest,
    QueryResponse,
)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, by whom (a guest from which network), and under which idempotency key."""

    user_id: str
    is_guest: bool
    query: str
    context: ConversationContext
    query_hash: str
    idempotency_key: str | None
    network: str | None = None

    @property
    def about(self) -> tuple[str, bool, str]:
        """What work on it is about: whoever asks the same at the same time joins it."""
        return self.user_id, self.is_guest, self.query_hash


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """An answer, how it came about, and the account after it."""

    answer: Answer
    account: UserCredits
    cached: bool = False
    charged: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class QueryReply:
    """The response, and whether it is a replay of an earlier one."""

    response: QueryResponse
    replayed: bool = False


def build_stale_response(question: Question, answer: Answer) -> QueryResponse:
    """The response while the database cannot be asked: whose a session id is, and what they have, is unknown."""
    return QueryResponse(
        query=question.query,
        products=answer.products,
        recommendations_summary=answer.recommendations_summary,
        cached=True,
        metadata=QueryMetadata(
            cached=True,
            cache_hit=True,
            charged=0,
            user_id=question.user_id,
            available_credits=None,
            max_credits=None,
            is_guest=question.is_guest,
            can_reset=not question.is_guest,
            next_reset_time=None,
            stale=True,
            near_misses=answer.near_misses,
            criteria=answer.criteria,
        ),
    )


def build_replay(question: Question, response: QueryResponse) -> IdempotencyRecord:
    """What is kept of a response under the question's key."""
    key = question.idempotency_key or ""
    return IdempotencyRecord(question.user_id, key, question.query_hash, response.model_dump(mode="json"))


def build_exhausted_error(credits_: CreditService, account: UserCredits) -> CreditsExhaustedError:
    """The error for a caller without credits, who is told how to get some."""
    status = credits_.build_status(account)
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


def build_response(question: Question, outcome: QueryOutcome, credits_: CreditService) -> QueryResponse:
    """The response to `question`."""
    return QueryResponse(
        query=question.query,
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
            **credits_.build_status(outcome.account).__dict__,
        ),
    )


def build_context(request: QueryRequest) -> ConversationContext:
    """What was said before the question, whichever way the client sends it."""
    context = request.conversation_context or ConversationContext()
    messages = list(context.messages or request.conversation_history or [])
    if messages and messages[-1].sender == "user" and messages[-1].text.strip() == request.query.strip():
        messages.pop()
    if not messages and context.last_query and context.last_query.strip() != request.query.strip():
        messages = [ConversationMessage(text=context.last_query, sender="user")]
    return ConversationContext(messages=messages, last_product_criteria=context.last_product_criteria)


def serialize_context(context: ConversationContext) -> str | None:
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
