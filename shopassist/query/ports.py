"""The assistant that the query service asks."""

from typing import Protocol

from shopassist.query.models import Answer, ConversationContext


class Assistant(Protocol):
    """Answers shoppers' questions."""

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """The answer to `query` after what was said before; raises a `ShopAssistError` when there can be none."""
