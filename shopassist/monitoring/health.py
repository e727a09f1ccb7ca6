"""Availability of the service while the database is down; health checks and their routes."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from starlette.types import Scope

from shopassist import __version__
from shopassist.api.dependencies import get_container
from shopassist.api.error_handlers import RETRY_AFTER_SECONDS
from shopassist.cache.service import CachedAnswers, StaleAnswers
from shopassist.db.database import DatabaseManager
from shopassist.db.roles import find_missing_privileges
from shopassist.errors import DatabaseAbsentError, ShopAssistError, StorageUnavailableError
from shopassist.settings import Storage

logger = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
"""Interval of checking that the database answers and whether the cache was cleared."""

POLL_TIMEOUT_SECONDS = 2.0

DEGRADED_REASON = (
    "The database is away. Answers in memory are served; what needs a credit or is to be stored is refused."
)
RECOVERED_REASON = "The database is back."


class Phase(StrEnum):
    """What the service can do. While starting, the schema is not known to fit yet."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    STOPPING = "stopping"


class Availability:
    """Watches the database while the process serves, and logs once when it goes down and when it is back."""

    def __init__(
        self,
        stored: CachedAnswers,
        stale: StaleAnswers,
        database: DatabaseManager | None,
        may_start_without: bool,
        fatal_after_seconds: float | None,
    ) -> None:
        """With `may_start_without` the database may be down at first.

        If it is down for longer than `fatal_after_seconds`, `lost` is set to the reason and `on_lost` is called.
        """
        self.lost: str | None = None
        self.on_lost: Callable[[str], None] = lambda _: signal.raise_signal(signal.SIGTERM)
        self._stored = stored
        self._stale = stale
        self._database = database
        self._missing_privileges: str | None = None
        self._may_start_without = may_start_without
        self._fatal_after_seconds = fatal_after_seconds
        self.prepared = asyncio.Event()
        self._stopping = False
        self._down_since: float | None = None

    @property
    def phase(self) -> Phase:
        """Current phase."""
        if self._stopping:
            return Phase.STOPPING
        if not self.prepared.is_set():
            return Phase.STARTING
        is_whole = self._down_since is None and self._missing_privileges is None
        return Phase.READY if is_whole else Phase.DEGRADED

    @property
    def is_ready(self) -> bool:
        """Whether to send requests here. While the database is down, answers from memory count."""
        return self.phase in {Phase.READY, Phase.DEGRADED} and self._missing_privileges is None

    def status(self) -> dict[str, str | float]:
        """Return the phase, and for how many seconds the database has been down."""
        seconds = 0.0 if self._down_since is None else time.monotonic() - self._down_since
        return {"status": self.phase.value, "database_away_seconds": round(seconds, 1)}

    def stop(self) -> None:
        """Start no more work in this process."""
        self._stopping = True

    @asynccontextmanager
    async def running(self, prepare: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Prepare the database and watch it during the block.

        Raises what `prepare` raises, unless the database is down and may be: then it is prepared as soon as it is up.
        """
        try:
            await prepare()
            self.prepared.set()
        except (DatabaseAbsentError, StorageUnavailableError):
            if not self._may_start_without:
                raise
            self._note_down()
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
                if not self.prepared.is_set():
                    await prepare()
                    self.prepared.set()
                async with asyncio.timeout(POLL_TIMEOUT_SECONDS):
                    epoch = await self._stored.read_epoch()
            except (DatabaseAbsentError, StorageUnavailableError, TimeoutError):
                self._note_down()
            except ShopAssistError as error:
                self._give_up(error.detail)
            except Exception as error:  # noqa: BLE001 - any error means that it does not answer; it is checked again
                self._note_down()
                logger.debug("database_look_failed", error=type(error).__name__)
                await self._check_privileges()
            else:
                self._stale.set_epoch(epoch)
                self._note_up()
                await self._check_privileges()

    async def _check_privileges(self) -> None:
        """Log once when the role loses rights that it needs, and when it has them again."""
        if self._database is None:
            return
        with suppress(Exception):  # the look before decides whether the database is away
            missing = await find_missing_privileges(self._database.fetch_value_once)
            if missing != self._missing_privileges:
                self._missing_privileges = missing
                logger.warning("database_rights", reason=f"missing: {missing}" if missing else "complete again")

    def _note_down(self) -> None:
        now = time.monotonic()
        if self._down_since is None:
            self._down_since = now
            logger.warning("service_degraded", reason=DEGRADED_REASON)
        limit = self._fatal_after_seconds
        if limit is not None and now - self._down_since >= limit:
            self._give_up(f"The database has been away for {limit:g} seconds, the limit of DB_FATAL_AFTER_SECONDS.")

    def _note_up(self) -> None:
        if self._down_since is not None:
            seconds = time.monotonic() - self._down_since
            self._down_since = None
            logger.warning("service_whole", reason=RECOVERED_REASON, milliseconds=round(1000 * seconds))

    def _give_up(self, reason: str) -> None:
        self.lost = reason
        logger.error("database_given_up", reason=reason)
        self.on_lost(reason)


def check_started(availability: Availability, scope: Scope) -> StorageUnavailableError | None:
    """Return an error for API requests until the schema of the database was checked."""
    is_refused = availability.phase is Phase.STARTING and scope["path"].startswith("/api")
    return StorageUnavailableError() if is_refused else None


PING_TIMEOUT_SECONDS = 2

router = APIRouter(tags=["status"])


class Health(BaseModel):
    """The process is alive."""

    status: str = "healthy"


class Readiness(BaseModel):
    """Whether the service is ready."""

    status: Phase


class DatabaseHealth(BaseModel):
    """Whether the database answers, and its latency."""

    status: str
    storage: str
    latency_ms: float | None = None


class DetailedHealth(Health):
    """State of all components."""

    version: str = __version__
    database: DatabaseHealth
    pool: dict[str, Any] | None
    components: dict[str, Any]


async def check_database(storage: Storage, database: DatabaseManager | None) -> DatabaseHealth:
    """Check the database with one round trip, within `PING_TIMEOUT_SECONDS`. Storage in memory is always healthy."""
    if database is None:
        return DatabaseHealth(status="healthy", storage=storage.value)
    started_at = time.perf_counter()
    try:
        async with asyncio.timeout(PING_TIMEOUT_SECONDS):
            await database.ping()
    except Exception:  # noqa: BLE001 - any error means that it is not healthy
        return DatabaseHealth(status="unhealthy", storage=storage.value)
    latency = round(1000 * (time.perf_counter() - started_at), 2)
    return DatabaseHealth(status="healthy", storage=storage.value, latency_ms=latency)


@router.get("/health")
async def read_health() -> Health:
    """Return whether the process is alive, whatever the state of the database."""
    return Health()


@router.get("/health/ready", responses={503: {"model": Readiness, "description": "Not ready yet, or stopping."}})
async def read_readiness(request: Request, response: Response) -> Readiness:
    """Return whether to send requests here; while the database is down, answers from memory count."""
    availability = get_container(request).availability()
    if not availability.is_ready:
        _mark_unavailable(response)
    return Readiness(status=availability.phase)


@router.get("/health/database", responses={503: {"model": DatabaseHealth, "description": "The database is down."}})
async def read_database_health(request: Request, response: Response) -> DatabaseHealth:
    """Return whether the database answers."""
    container = get_container(request)
    health = await check_database(container.settings().storage.storage, container.database())
    if health.status != "healthy":
        _mark_unavailable(response)
    return health


@router.get("/health/detailed", responses={503: {"model": DetailedHealth, "description": "A component is down."}})
async def read_detailed_health(request: Request, response: Response) -> DetailedHealth:
    """Return the state of all components."""
    container = get_container(request)
    database, shared_answers = container.database(), container.shared_answers()
    health = await read_database_health(request, response)
    return DetailedHealth(
        status=health.status,
        database=health,
        pool=None if database is None else database.pool_status(),
        components={
            "jobs": container.jobs().status(),
            "ledger": container.ledger_reconciliation().build_status(),
            "service": container.availability().status(),
            "replica": container.replica().status(),
            "resilience": container.resilience().get_counters(),
            "shared_cache": {"status": "off"} if shared_answers is None else shared_answers.status(),
            "stale_answers": container.stale_answers().status(),
        },
    )


def _mark_unavailable(response: Response) -> None:
    response.status_code = 503
    response.headers["Retry-After"] = RETRY_AFTER_SECONDS
