"""Availability of the service while the database comes and goes, and database health checks."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any

import structlog
from pydantic import BaseModel

from shopassist.cache.ports import CacheEpochs
from shopassist.cache.service import StaleAnswers
from shopassist.db.database import DatabaseManager
from shopassist.errors import DatabaseAbsentError, ShopAssistError, StorageUnavailableError
from shopassist.settings import Storage

logger = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
"""How often the database is asked whether it is there and whether the cache was cleared."""

POLL_TIMEOUT_SECONDS = 2.0

DEGRADED_REASON = (
    "The database is away. Answers in memory are served; what needs a credit or is to be stored is refused."
)
RECOVERED_REASON = "The database is back."


class Phase(StrEnum):
    """What service is possible. Before the schema is known to fit, none that needs the database is."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    STOPPING = "stopping"


def raise_sigterm(_: str) -> None:
    """Ask this process to stop."""
    signal.raise_signal(signal.SIGTERM)


class Availability:
    """Looks after the database for as long as the process serves, and says once when it goes and when it comes."""

    def __init__(
        self,
        epochs: CacheEpochs,
        answers: StaleAnswers,
        may_start_without: bool,
        fatal_after_seconds: float | None,
    ) -> None:
        """With `may_start_without` the database need not be there at first.

        One that is away for longer than `fatal_after_seconds` is given up: `lost` says why, and `on_lost` is called.
        """
        self.lost: str | None = None
        self.on_lost: Callable[[str], None] = raise_sigterm
        self._epochs = epochs
        self._answers = answers
        self._may_start_without = may_start_without
        self._fatal_after_seconds = fatal_after_seconds
        self._prepared = asyncio.Event()
        self._stopping = False
        self._away_since: float | None = None

    @property
    def phase(self) -> Phase:
        """What service is possible now."""
        if self._stopping:
            return Phase.STOPPING
        if not self._prepared.is_set():
            return Phase.STARTING
        return Phase.READY if self._away_since is None else Phase.DEGRADED

    def status(self) -> dict[str, str | float]:
        """The phase, and for how many seconds the database has been away."""
        away = 0.0 if self._away_since is None else time.monotonic() - self._away_since
        return {"status": self.phase.value, "database_away_seconds": round(away, 1)}

    def stop(self) -> None:
        """From now on nothing new is begun here."""
        self._stopping = True

    async def prepared(self) -> None:
        """Wait until the database is ready to be worked with."""
        await self._prepared.wait()

    @asynccontextmanager
    async def running(self, prepare: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Prepare the database, and look after it for the length of the block.

        Raises what `prepare` raises, but for a database that is away and need not be there yet: it is then prepared as
        soon as it appears.
        """
        try:
            await prepare()
            self._prepared.set()
        except (DatabaseAbsentError, StorageUnavailableError):
            if not self._may_start_without:
                raise
            self._went_away()
        watch = asyncio.create_task(self._watch(prepare))
        try:
            yield
        finally:
            self.stop()
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, prepare: Callable[[], Awaitable[None]]) -> None:
        while self.lost is None:
            await asyncio.sleep(POLL_SECONDS)
            try:
                if not self._prepared.is_set():
                    await prepare()
                    self._prepared.set()
                async with asyncio.timeout(POLL_TIMEOUT_SECONDS):
                    epoch = await self._epochs.current()
            except (DatabaseAbsentError, StorageUnavailableError, TimeoutError):
                self._went_away()
            except ShopAssistError as error:
                self._give_up(error.detail)
            except Exception as error:  # noqa: BLE001 - whatever keeps the database from answering, it is looked at again
                self._went_away()
                logger.debug("database_look_failed", error=type(error).__name__)
            else:
                self._answers.set_epoch(epoch)
                self._is_here()

    def _went_away(self) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            logger.warning("service_degraded", reason=DEGRADED_REASON)
        limit = self._fatal_after_seconds
        if limit is not None and now - self._away_since >= limit:
            self._give_up(f"The database has been away for {limit:g} seconds, the limit of DB_FATAL_AFTER_SECONDS.")

    def _is_here(self) -> None:
        if self._away_since is not None:
            seconds = time.monotonic() - self._away_since
            self._away_since = None
            logger.warning("service_whole", reason=RECOVERED_REASON, milliseconds=round(1000 * seconds))

    def _give_up(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
            logger.error("database_given_up", reason=reason)
            self.on_lost(reason)


PING_TIMEOUT_SECONDS = 2


class DatabaseHealth(BaseModel):
    """Whether the database answers, and how fast (milliseconds)."""

    status: str
    storage: str
    latency_ms: float | None = None


class HealthService:
    """Looks at the parts. Without a database (in memory) there is nothing that can be away."""

    def __init__(self, storage: Storage, database: DatabaseManager | None) -> None:
        """`database` is None where state is in memory."""
        self._storage = storage
        self._database = database

    async def database(self) -> DatabaseHealth:
        """One round trip, bounded in time."""
        if self._database is None:
            return DatabaseHealth(status="healthy", storage=self._storage.value)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                await self._database.ping()
        except Exception:  # noqa: BLE001 - whatever keeps the database from answering, it is not healthy
            return DatabaseHealth(status="unhealthy", storage=self._storage.value)
        latency = round(1000 * (time.perf_counter() - began), 2)
        return DatabaseHealth(status="healthy", storage=self._storage.value, latency_ms=latency)

    def pool(self) -> dict[str, Any] | None:
        """Connections of the pool, or None in memory."""
        return None if self._database is None else self._database.pool_status()
