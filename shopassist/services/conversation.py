"""What was said before a question, and the part of it that an answer depends on."""

import json

from shopassist.models.query import ConversationContext, ConversationMessage, QueryRequest


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
