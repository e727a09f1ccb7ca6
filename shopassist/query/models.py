"""Request and response schemas of `POST /api/query`, and the assistant's answer."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, field_validator

from shopassist.text import StorableText

MAX_QUERY_LENGTH = 2000
MAX_MESSAGE_LENGTH = 20_000
MAX_MESSAGES = 50

ShortText = Annotated[StorableText, Field(max_length=255)]


class PriceRange(BaseModel):
    """Limits of a price, inclusive, in the currency of the market."""

    min: FiniteFloat | None = Field(default=None, ge=0)
    max: FiniteFloat | None = Field(default=None, ge=0)


class ProductCriteria(BaseModel):
    """What earlier turns of a conversation were about."""

    category: ShortText | None = None
    price_range: PriceRange | None = None
    features: list[ShortText] = Field(default_factory=list, max_length=50)
    brand: ShortText | None = None
    marketplace: ShortText | None = None


class ConversationMessage(BaseModel):
    """One earlier message."""

    id: ShortText | int | None = None
    text: StorableText = Field(max_length=MAX_MESSAGE_LENGTH)
    sender: Literal["user", "system"]
    timestamp: datetime | ShortText | FiniteFloat | None = None


class ConversationContext(BaseModel):
    """What was said before the question."""

    messages: list[ConversationMessage] = Field(default_factory=list, max_length=MAX_MESSAGES)
    last_query: StorableText | None = Field(default=None, max_length=MAX_QUERY_LENGTH)
    last_product_criteria: ProductCriteria | None = None


def keep_newest(messages: Any) -> Any:
    """The last messages of a list, as many as are looked at."""
    return messages[-MAX_MESSAGES:] if isinstance(messages, list) else messages


class QueryRequest(BaseModel):
    """A question.

    `conversation_history` is what the deployed client sends in place of a context: the whole of it, which only grows,
    so that what is older than the last 50 messages is left out instead of being refused.
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
    """A product that would fit but for what `misses` says, in words for the shopper."""

    misses: list[str]


class Answer(BaseModel):
    """What the assistant says to a question.

    `degraded` marks an answer made by less than the whole assistant: it is neither charged nor stored.
    """

    products: list[Recommendation] = Field(default_factory=list)
    recommendations_summary: str
    near_misses: list[NearMiss] = Field(default_factory=list)
    criteria: ProductCriteria | None = None
    degraded: bool = False

    @property
    def chargeable(self) -> bool:
        """Whether this answer is worth a credit and keeping."""
        return bool(self.products) and not self.degraded


class QueryMetadata(BaseModel):
    """How the answer came about, and what the caller has left.

    `stale` marks an answer that was served while the database could not be asked, 24 hours old at the most: only then
    are the credits unknown, which is null.
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
