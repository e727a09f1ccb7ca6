"""The replica: whether it may be read from, which it may only while it is known not to be too far behind."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import structlog

from shopassist.db.lag import Lag
from shopassist.db.manager import DatabaseManager
from shopassist.db.resilience.policy import Limits, Resilience
from shopassist.settings import DatabaseConfig

logger = structlog.get_logger(__name__)

LOOK_SECONDS = 0.2
"""How often either server is asked where it is."""

LIMITS = Limits(attempts=1, retry_seconds=0.7, hot_seconds=0.5, unit_seconds=0.7, wait_seconds=0.5)
"""Nothing is tried again at the replica, and little waited for: the primary is there."""

# What is acknowledged has been flushed, and what is flushed is sent to replicas.
PRIMARY_POSITION = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint END
"""
REPLICA_POSITION = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END
"""


class State(StrEnum):
    """What the replica is fit for."""

    NONE = "none"
    UNKNOWN = "unknown"
    FIT = "fit"
    LAGGING = "lagging"
    AWAY = "away"
    NO_STANDBY = "no_standby"


@dataclass(slots=True)
class Figures:
    """Reads that may lag, so far in this process, by who answered them."""

    reads: int = 0
    reads_by_primary: int = 0
    stale_reads: int = 0


class Replica:
    """Looks after the replica for as long as the process serves. There may be none."""

    def __init__(self, config: DatabaseConfig | None, primary: DatabaseManager | None) -> None:
        """Connects to nothing yet; in memory there is neither. Raises `StartupError` when the link is no such."""
        self.manager: DatabaseManager | None = None
        self.lag = Lag()
        self.figures = Figures()
        self._primary = primary
        self._max_lag = config.replica_max_lag if config else 0.0
        self._trouble: State | None = State.UNKNOWN
        if config and primary and config.replica_url is not None:
            self.manager = DatabaseManager(config, Resilience(LIMITS), replica=True)
            primary.companions.append(self.manager)

    @property
    def state(self) -> State:
        """What it is fit for now."""
        if self.manager is None:
            return State.NONE
        if self._trouble is not None:
            return self._trouble
        seconds = self.lag.seconds
        if seconds is None:
            return State.UNKNOWN
        return State.FIT if seconds <= self._max_lag else State.LAGGING

    def status(self) -> dict[str, Any]:
        """State, lag in seconds (null where it is not known), and use."""
        if self.manager is None:
            return {"status": State.NONE.value}
        seconds = self.lag.seconds
        return {
            "status": self.state.value,
            "lag_seconds": None if seconds is None else round(seconds, 2),
            "max_lag_seconds": self._max_lag,
            **asdict(self.figures),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after it for the length of the block."""
        looks = []
        if self.manager is not None:
            looks = [asyncio.create_task(again(look)) for look in (self._look_at_primary, self._look_at_replica)]
        try:
            yield
        finally:
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _look_at_primary(self) -> None:
        primary = self._primary
        if primary is None:
            return
        asked_at = time.monotonic()
        # That this look fails is no reason to think the primary away; while it is, this may find out that it is back.
        if primary.resilience.is_available:
            position = await primary.value(PRIMARY_POSITION)
        else:
            position = await primary.resilience.run(lambda: primary.value(PRIMARY_POSITION), repeatable=True)
        if position is not None:
            self.lag.primary_at(position, asked_at)

    async def _look_at_replica(self) -> None:
        trouble: State | None = State.AWAY
        try:
            position = await self._replica_position()
            trouble = State.NO_STANDBY if position is None else None
            if position is not None:
                self.lag.replica_at(position)
        finally:
            if trouble is not self._trouble:
                logger.info("replica", reason=trouble or "in touch")
            self._trouble = trouble

    async def _replica_position(self) -> int | None:
        manager = self.manager
        if manager is None:
            return None
        position: int | None = await manager.resilience.run(lambda: manager.value(REPLICA_POSITION), repeatable=True)
        return position


async def again(look: Callable[[], Awaitable[None]]) -> None:
    """Look for ever, whatever keeps a server from answering."""
    while True:
        try:
            await look()
        except Exception as error:  # noqa: BLE001 - it is looked at again
            logger.debug("replica_look_failed", error=type(error).__name__)
        await asyncio.sleep(LOOK_SECONDS)
