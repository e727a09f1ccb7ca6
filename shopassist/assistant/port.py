"""What the services ask of an assistant, and what an assistant asks of the catalogue."""

from collections.abc import Sequence
from typing import Protocol

from shopassist.models.catalog import Product, Vocabulary
from shopassist.models.criteria import Criteria
from shopassist.models.query import Answer, ConversationContext


class Assistant(Protocol):
    """Answers shoppers' questions."""

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """The answer to `query` after what was said before; raises a `ShopAssistError` when there can be none."""


class Catalog(Protocol):
    """The products, each call a short unit of work of its own."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        """Products that meet every hard criterion, the best text match first."""

    async def vocabulary(self) -> Vocabulary:
        """The names that the catalogue knows."""

    async def correct(self, words: Sequence[str]) -> dict[str, str]:
        """The catalogue's nearest word for each of `words` that it does not know and that may be a misspelling."""
