"""Redis connection with millisecond time-outs and a circuit breaker."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from shopassist.db.resilience import CircuitBreaker
from shopassist.errors import StartupError, StorageUnavailableError

logger = structlog.get_logger(__name__)

if TYPE_CHECKING:
    from redis.asyncio import Redis

SCHEMES = ("redis://", "rediss://")
CONNECT_TIMEOUT_SECONDS = 0.1
SOCKET_TIMEOUT_SECONDS = 0.05
TOTAL_TIMEOUT_SECONDS = 0.15
"""To connect, to be let in and to be answered."""

BREAKER_OPEN_SECONDS = 5.0
"""How long it is left alone after three failures in a row; then one caller tries."""

MAX_CONNECTIONS = 8
WRONG_TYPE_ERROR = "WRONGTYPE"
"""What Redis says of a value that is no string: somebody else's."""

Command = tuple[str | bytes | int, ...]


class RedisClient:
    """Sends commands, several at a time. Each failure is `StorageUnavailableError`."""

    def __init__(self, url: str) -> None:
        """Nothing is connected until something is sent."""
        self.breaker = CircuitBreaker(self._opened, open_seconds=BREAKER_OPEN_SECONDS)
        self.failures = 0
        self._url = url
        self._client: Redis | None = None

    async def send(self, *commands: Command) -> Sequence[object]:
        """What is answered to each command; None to one about a value that is no string.

        Raises `StorageUnavailableError` when Redis does not answer in time, or says no.
        """
        with self.breaker.guarded():
            try:
                async with asyncio.timeout(TOTAL_TIMEOUT_SECONDS):
                    return await self._sent(commands)
            except Exception as error:
                # Whatever the library makes of what it was sent: nothing in Redis is worth a failed request.
                self.failures += 1
                logger.debug("shared_cache_failed", error=type(error).__name__)
                raise StorageUnavailableError from error

    async def read(self, mark: str, names: Sequence[str]) -> tuple[bool, list[bytes | None]]:
        """Whether there is a `mark`, and the values; empty where there is none, None where it is no string.

        Of a value that is too large, one byte too many is read.
        """
        answers = await self.send(("EXISTS", mark), *(("GETRANGE", name, 0, MAX_ENTRY_BYTES) for name in names))
        return bool(answers[0]), [answer if isinstance(answer, bytes) else None for answer in answers[1:]]

    async def ping(self) -> None:
        """Raises `StorageUnavailableError` when it does not answer."""
        await self.send(("PING",))

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _sent(self, commands: Sequence[Command]) -> Sequence[object]:
        from redis.exceptions import ResponseError  # noqa: PLC0415 - as below

        async with self._connected().pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not (
                isinstance(answer, ResponseError) and str(answer).startswith(WRONG_TYPE_ERROR)
            ):
                raise answer
        return answers

    def _connected(self) -> "Redis":
        if self._client is None:
            # Importing it takes a third of a second, and most deployments have none.
            from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
            from redis.maint_notifications import MaintNotificationsConfig  # noqa: PLC0415

            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=MAX_CONNECTIONS,
                timeout=SOCKET_TIMEOUT_SECONDS,
                socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
                maint_notifications_config=MaintNotificationsConfig(enabled=False),
            )
            self._client = Redis.from_pool(pool)
        return self._client

    def _opened(self) -> None:
        logger.warning("shared_cache_away", reason="Redis does not answer; answers are read from the database.")


def build_redis_client(url: SecretStr | None) -> RedisClient | None:
    """The link, or None where there is no `url`. Raises `StartupError` for one that leads elsewhere."""
    if url is None:
        return None
    if not url.get_secret_value().startswith(SCHEMES):
        raise StartupError(f"REDIS_URL must begin with {' or '.join(SCHEMES)}.")
    return RedisClient(url.get_secret_value())


MAX_ENTRY_BYTES = 128 * 1024
"""A larger answer is not shared, and whatever is larger is no answer."""
