"""Request and response schemas of `POST /api/query`, the assistant's answer, and the query service's types."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, field_validator

from shopassist.credits.models import CreditStatus, UserCredits
from shopassist.text import StorableText

MAX_QUERY_LENGTH = 2000
MAX_MESSAGE_LENGTH = 20_000
MAX_MESSAGES = 50

ShortText = Annotated[StorableText, Field(max_length=255)]


class PriceRange(BaseModel):
    """Inclusive price limits in the currency of the market."""

    min: FiniteFloat | None = Field(default=None, ge=0)
    max: FiniteFloat | None = Field(default=None, ge=0)


class ProductCriteria(BaseModel):
    """The product criteria of earlier turns."""

    category: ShortText | None = None
    price_range: PriceRange | None = None
    features: list[ShortText] = Field(default_factory=list, max_length=50)
    brand: ShortText | None = None
    marketplace: ShortText | None = None


class ConversationMessage(BaseModel):
    """An earlier message of the conversation."""

    id: ShortText | int | None = None
    text: StorableText = Field(max_length=MAX_MESSAGE_LENGTH)
    sender: Literal["user", "system"]
    timestamp: datetime | ShortText | FiniteFloat | None = None


class ConversationContext(BaseModel):
    """The conversation before the question."""

    messages: list[ConversationMessage] = Field(default_factory=list, max_length=MAX_MESSAGES)
    last_query: StorableText | None = Field(default=None, max_length=MAX_QUERY_LENGTH)
    last_product_criteria: ProductCriteria | None = None

    def serialize(self) -> str | None:
        """Return canonical JSON of the parts that an answer depends on; None when there are none."""
        criteria = self.last_product_criteria
        if not self.messages and criteria is None:
            return None
        parts = {
            "criteria": criteria and criteria.model_dump(mode="json"),
            "messages": [[message.sender, message.text] for message in self.messages],
        }
        return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def keep_newest(messages: Any) -> Any:
    """Return the last `MAX_MESSAGES` messages of a list."""
    return messages[-MAX_MESSAGES:] if isinstance(messages, list) else messages


class QueryRequest(BaseModel):
    """A question.

    The deployed client sends its whole conversation as `conversation_history` instead of a context. It only grows, so
    messages before the last 50 are ignored instead of being refused.
    """

    query: StorableText = Field(
        min_length=1, max_length=MAX_QUERY_LENGTH, examples=["best 5G phone under ₹12,000 with 8GB RAM"]
    )
    conversation_context: ConversationContext | None = None
    conversation_history: Annotated[list[ConversationMessage] | None, BeforeValidator(keep_newest)] = None

    @field_validator("query")
    @classmethod
    def _not_blank(cls, query: str) -> str:
        if not query.strip():
            raise ValueError("must not be blank")
        return query

    def build_context(self) -> ConversationContext:
        """Return the conversation before the question, from either field."""
        context = self.conversation_context or ConversationContext()
        query = self.query.strip()
        messages = list(context.messages or self.conversation_history or [])
        if messages and messages[-1].sender == "user" and messages[-1].text.strip() == query:
            messages.pop()
        if not messages and context.last_query and context.last_query.strip() != query:
            messages = [ConversationMessage(text=context.last_query, sender="user")]
        return ConversationContext(messages=messages, last_product_criteria=context.last_product_criteria)


class Recommendation(BaseModel):
    """A recommended product. Only `rating` may be null."""

    title: str
    price: FiniteFloat
    currency: str
    rating: FiniteFloat | None = None
    features: list[str] = Field(default_factory=list)
    pros: list[str] = Field(default_factory=list)
    cons: list[str] = Field(default_factory=list)
    link: str


class NearMiss(Recommendation):
    """A product that fits except for `misses`, which is text for the shopper."""

    misses: list[str]


class Answer(BaseModel):
    """The assistant's answer.

    A `degraded` answer was made while a part of the assistant failed: it is neither charged nor stored.
    """

    products: list[Recommendation] = Field(default_factory=list)
    recommendations_summary: str
    near_misses: list[NearMiss] = Field(default_factory=list)
    criteria: ProductCriteria | None = None
    degraded: bool = False

    @property
    def chargeable(self) -> bool:
        """Whether this answer is charged and stored."""
        return bool(self.products) and not self.degraded


class QueryMetadata(BaseModel):
    """The origin of the answer, and the caller's credits after it.

    A `stale` answer was served while the database was unavailable and is at most 24 hours old. Only then the credits
    are unknown (null).
    """

    cached: bool
    cache_hit: bool
    charged: int
    user_id: str
    available_credits: int | None
    max_credits: int | None
    is_guest: bool
    can_reset: bool
    next_reset_time: datetime | None
    stale: bool = False
    near_misses: list[NearMiss] = Field(default_factory=list)
    criteria: ProductCriteria | None = None


class QueryResponse(BaseModel):
    """The answer to `POST /api/query`."""

    query: str
    products: list[Recommendation]
    recommendations_summary: str
    error: str | None = None
    cached: bool
    metadata: QueryMetadata


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its caller (a guest with their network) and its idempotency key."""

    user_id: str
    is_guest: bool
    query: str
    context: ConversationContext
    query_hash: str
    idempotency_key: str | None
    network: str | None = None

    @property
    def flight_key(self) -> tuple[str, bool, str]:
        """Key of single flight: concurrent questions with the same key share one piece of work."""
        return self.user_id, self.is_guest, self.query_hash

    def build_response(self, outcome: "QueryOutcome", credits_: CreditStatus | None) -> QueryResponse:
        """Return the response with the caller's credits after the outcome; None while the database is unavailable."""
        answer = outcome.answer
        unknown = {"available_credits": None, "max_credits": None, "next_reset_time": None}
        caller = {"user_id": self.user_id, "is_guest": self.is_guest, "can_reset": not self.is_guest}
        return QueryResponse(
            query=self.query,
            products=answer.products,
            recommendations_summary=answer.recommendations_summary,
            error=outcome.error,
            cached=outcome.cached,
            metadata=QueryMetadata(
                cached=outcome.cached,
                cache_hit=outcome.cached,
                charged=outcome.charged,
                **caller | (unknown if credits_ is None else credits_.__dict__),
                stale=credits_ is None,
                near_misses=answer.near_misses,
                criteria=answer.criteria,
            ),
        )


@dataclass(frozen=True, slots=True)
class QueryOutcome:
    """An answer, its origin, and the account after it; None while the database is unavailable."""

    answer: Answer
    account: UserCredits | None
    cached: bool = False
    charged: int = 0
    error: str | None = None


WorkOutcome = QueryOutcome | None
"""None when the work did nothing, since other work on the question has just ended: look for its answer."""


@dataclass(frozen=True, slots=True)
class QueryReply:
    """The response, and whether it replays an earlier one."""

    response: QueryResponse
    replayed: bool = False
