"""The read replica: its replication lag, and reads from it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.database import DatabaseManager
from shopassist.db.failures import BusyError, RolledBackError
from shopassist.db.ports import Repositories, TransactionBody, UnitOfWork
from shopassist.db.resilience import Resilience, ResilienceLimits, limit_time, note_stale
from shopassist.db.unit_of_work import PostgresUnitOfWork
from shopassist.errors import StorageUnavailableError
from shopassist.settings.database import DatabaseConfig

Result = TypeVar("Result")

logger = structlog.get_logger(__name__)


MAX_WAL_MARKS = 4096


@dataclass(frozen=True, slots=True)
class WalMark:
    """Where the primary's log (WAL) had come to, in bytes, at the latest at an instant."""

    at: float
    as_of: datetime
    position: int


class ReplicationLag:
    """The time since the primary was last seen where the replica is now.

    All times are of one clock, this process's, so no two clocks need agree, and nothing is written. The replica's
    `pg_last_xact_replay_timestamp` will not do: with an idle primary it grows for ever, and a replica that has lost its
    primary tells the same. Bytes alone do not say for how long. Of a primary that is not seen any more nobody knows
    what the replica lacks, so then this grows.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known at first."""
        self._monotonic = monotonic
        self._marks: deque[WalMark] = deque(maxlen=MAX_WAL_MARKS)
        self._newest: int | None = None
        self._reached: WalMark | None = None

    @property
    def seconds(self) -> float | None:
        """What the replica shows is not older than that; None while that is not known."""
        return None if self._reached is None else self._monotonic() - self._reached.at

    @property
    def as_of(self) -> datetime | None:
        """Nothing that was committed until then is missing on the replica."""
        return None if self._reached is None else self._reached.as_of

    def primary_at(self, position: int, asked_at: float) -> None:
        """The primary, asked at that instant, said where its log has come to; all acknowledged before is in it."""
        if self._newest is not None and position < self._newest:
            # Another server took its place, without what the old one had not sent. Older marks mean nothing any more.
            self._marks.clear()
        elif position == self._newest and len(self._marks) > 1 and self._marks[-2].position == position:
            self._marks.pop()  # of an idle primary's marks the first and the last tell all
        self._newest = position
        age = self._monotonic() - asked_at
        # The instant by the wall clock is for people to read, and decides nothing.
        self._marks.append(WalMark(asked_at, datetime.fromtimestamp(time.time() - age, UTC), position))

    def replica_at(self, position: int) -> None:
        """The replica has replayed the log up to there."""
        while self._marks and self._marks[0].position <= position:
            self._reached = self._marks.popleft()


POLL_SECONDS = 0.2
"""How often either server is asked where it is."""

REPLICA_LIMITS = ResilienceLimits(attempts=1, retry_seconds=0.7, hot_seconds=0.5, unit_seconds=0.7, wait_seconds=0.5)
"""Nothing is tried again at the replica, and little waited for: the primary is there."""

# What is acknowledged has been flushed, and what is flushed is sent to replicas.
PRIMARY_POSITION = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint END
"""
REPLICA_POSITION = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END
"""


class ReplicaState(StrEnum):
    """What the replica is fit for."""

    NONE = "none"
    UNKNOWN = "unknown"
    FIT = "fit"
    LAGGING = "lagging"
    AWAY = "away"
    NO_STANDBY = "no_standby"


@dataclass(slots=True)
class ReplicaCounters:
    """Reads that may lag, so far in this process, by who answered them."""

    reads: int = 0
    reads_by_primary: int = 0
    stale_reads: int = 0


class Replica:
    """Looks after the replica for as long as the process serves. There may be none."""

    def __init__(self, config: DatabaseConfig | None, primary: DatabaseManager | None) -> None:
        """Connects to nothing yet; in memory there is neither. Raises `StartupError` when the link is no such."""
        self.manager: DatabaseManager | None = None
        self.lag = ReplicationLag()
        self.figures = ReplicaCounters()
        self._primary = primary
        self._max_lag = config.replica_max_lag if config else 0.0
        self._trouble: ReplicaState | None = ReplicaState.UNKNOWN
        if config and primary and config.replica_url is not None:
            self.manager = DatabaseManager(config, Resilience(REPLICA_LIMITS), replica=True)
            primary.companions.append(self.manager)

    @property
    def state(self) -> ReplicaState:
        """What it is fit for now."""
        if self.manager is None:
            return ReplicaState.NONE
        if self._trouble is not None:
            return self._trouble
        seconds = self.lag.seconds
        if seconds is None:
            return ReplicaState.UNKNOWN
        return ReplicaState.FIT if seconds <= self._max_lag else ReplicaState.LAGGING

    def status(self) -> dict[str, Any]:
        """State, lag in seconds (null where it is not known), and use."""
        if self.manager is None:
            return {"status": ReplicaState.NONE.value}
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
            looks = [asyncio.create_task(poll_forever(look)) for look in (self._look_at_primary, self._look_at_replica)]
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
        trouble: ReplicaState | None = ReplicaState.AWAY
        try:
            position = await self._replica_position()
            trouble = ReplicaState.NO_STANDBY if position is None else None
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


async def poll_forever(look: Callable[[], Awaitable[None]]) -> None:
    """Look for ever, whatever keeps a server from answering."""
    while True:
        try:
            await look()
        except Exception as error:  # noqa: BLE001 - it is looked at again
            logger.debug("replica_look_failed", error=type(error).__name__)
        await asyncio.sleep(POLL_SECONDS)


class PostgresReplicaReads(Generic[Repositories]):
    """Implements `ReplicaReads`."""

    def __init__(
        self,
        unit_of_work: UnitOfWork[Repositories],
        replica: Replica,
        repositories: Callable[[AsyncSession], Repositories],
    ) -> None:
        """`unit_of_work` is the primary's."""
        self._unit_of_work = unit_of_work
        self._replica = replica
        self._repositories = repositories

    async def run(self, body: TransactionBody[Repositories, Result]) -> Result:
        replica = self._replica
        if replica.manager is None:
            return await self._unit_of_work.run(body, repeatable=True)
        tried = replica.state is ReplicaState.FIT
        if tried:
            try:
                result = await self._at_replica(replica.manager, body)
            except Exception:  # noqa: BLE001 - whatever it was: what the primary says counts
                replica.figures.reads_by_primary += 1
            else:
                replica.figures.reads += 1
                return result
        else:
            replica.figures.reads_by_primary += 1
        try:
            return await self._unit_of_work.run(body, repeatable=True)
        except (BusyError, RolledBackError):
            raise  # the primary is there
        except StorageUnavailableError as gone:
            if tried or replica.state is ReplicaState.AWAY:
                raise
            return await self._stale(replica.manager, body, gone)

    async def _stale(
        self, manager: DatabaseManager, body: TransactionBody[Repositories, Result], gone: StorageUnavailableError
    ) -> Result:
        """However old it is: nobody else can answer."""
        as_of = self._replica.lag.as_of
        try:
            result = await self._at_replica(manager, body)
        except Exception:  # noqa: BLE001 - what keeps the service from answering is that the primary is gone
            raise gone from None
        self._replica.figures.stale_reads += 1
        note_stale(as_of)
        return result

    async def _at_replica(self, manager: DatabaseManager, body: TransactionBody[Repositories, Result]) -> Result:
        with limit_time(manager.resilience.limits.unit_seconds):
            return await PostgresUnitOfWork(manager, self._repositories).run(body, repeatable=True)
