"""What instances share beside the database, wired. No logic."""

from collections.abc import Awaitable, Callable

from dependency_injector import providers

from shopassist.cache.redis import EntryCodec, RedisAnswers
from shopassist.cache.redis_client import build_redis_client
from shopassist.identity.key_derivation import derive_shared_cache_key
from shopassist.wiring.rollout import Sides
from shopassist.wiring.state import State


async def closed(*parts: Callable[[], Awaitable[None]]) -> None:
    """Close each in turn."""
    for close in parts:
        await close()


class Sharing(Sides):
    """The tier of the query cache in Redis."""

    shared_answers = providers.Singleton(
        RedisAnswers,
        link=providers.Callable(build_redis_client, State.settings.provided.shared_cache_url),
        behind=State.cached_answers,
        epochs=State.cache_epochs,
        entries=providers.Factory(EntryCodec, providers.Callable(derive_shared_cache_key, State.settings)),
        clock=State.clock,
    )
