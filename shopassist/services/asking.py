"""Asking the assistant, for as long as somebody waits for its answer."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shopassist.assistant.port import Assistant
from shopassist.models.query import Answer, ConversationContext
from shopassist.services.flights import first_of, heard

Admit = Callable[[], Awaitable[None]]
"""Counts new work that a caller asks for. Raises when it is too much."""

logger = structlog.get_logger(__name__)


async def asked(
    assistant: Assistant,
    query: str,
    context: ConversationContext,
    timeout_seconds: float,
    abandoned: asyncio.Future[None],
) -> Answer | None:
    """The assistant's answer, or None when it failed, took too long, or nobody waits for it any more."""
    asking = asyncio.ensure_future(assistant.answer(query, context))
    try:
        await first_of(asking, abandoned, seconds=timeout_seconds)
        if abandoned.done():
            return None
        if not asking.done() or asking.cancelled():
            raise TimeoutError  # noqa: TRY301 - as any failure
        return asking.result()
    except Exception as failure:  # noqa: BLE001 - whatever failed, the credit goes back
        logger.warning("assistant_failed", error=type(failure).__name__)
        return None
    finally:
        asking.add_done_callback(heard)
        asking.cancel()
