"""The read replica: its replication lag, and reads from it."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, Generic

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from shopassist.db.database import DatabaseManager, PostgresUnitOfWork
from shopassist.db.failures import BusyError, RolledBackError
from shopassist.db.ports import Repositories, Result, TransactionBody, UnitOfWork
from shopassist.db.resilience import Resilience, ResilienceLimits, limit_time, note_stale
from shopassist.errors import StorageUnavailableError
from shopassist.settings.database import DatabaseConfig

logger = structlog.get_logger(__name__)

MAX_WAL_MARKS = 4096
POLL_SECONDS = 0.2

REPLICA_LIMITS = ResilienceLimits(attempts=1, retry_seconds=0.7, probe_seconds=0.5, work_seconds=0.7, wait_seconds=0.5)
"""No retries and short waits, because the primary can answer instead."""

# The primary flushes before it acknowledges a commit, and sends replicas what is flushed.
PRIMARY_POSITION = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint END
"""
REPLICA_POSITION = """
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END
"""


@dataclass(frozen=True, slots=True)
class WalMark:
    """A position in the primary's write-ahead log (WAL), in bytes, and when it had been reached."""

    at: float
    as_of: datetime
    position: int


class ReplicationLag:
    """The time since the primary was at the position where the replica is now.

    All times are of this process's clock, and nothing is written. The replica's `pg_last_xact_replay_timestamp` is not
    usable: with an idle primary it grows without limit, and it looks the same when the primary is lost. When the
    primary does not answer, the lag grows, because it is unknown what the replica lacks.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._marks: deque[WalMark] = deque(maxlen=MAX_WAL_MARKS)
        self._newest: int | None = None
        self._reached: WalMark | None = None

    @property
    def seconds(self) -> float | None:
        """Return the maximum age of the replica's data, or None if unknown."""
        return None if self._reached is None else self._monotonic() - self._reached.at

    @property
    def as_of(self) -> datetime | None:
        """Return the instant until which the replica has all commits."""
        return None if self._reached is None else self._reached.as_of

    def record_primary(self, position: int, asked_at: float) -> None:
        """Record the primary's position when it was asked; it covers all commits acknowledged before."""
        if self._newest is not None and position < self._newest:
            # Another server was promoted without the last changes of the old one: older marks are void.
            self._marks.clear()
        elif position == self._newest and len(self._marks) > 1 and self._marks[-2].position == position:
            self._marks.pop()  # the first and last mark of an idle primary are enough
        self._newest = position
        age = self._monotonic() - asked_at
        # The wall clock is only shown to people.
        self._marks.append(WalMark(asked_at, datetime.fromtimestamp(time.time() - age, UTC), position))

    def record_replica(self, position: int) -> None:
        """Record how far the replica has replayed the log."""
        while self._marks and self._marks[0].position <= position:
            self._reached = self._marks.popleft()


class ReplicaState(StrEnum):
    """Whether the replica can be read from, and why not."""

    NONE = "none"
    UNKNOWN = "unknown"
    FIT = "fit"
    LAGGING = "lagging"
    AWAY = "away"
    NO_STANDBY = "no_standby"


class Replica:
    """Polls the lag of the replica while the process serves. There may be no replica."""

    def __init__(self, config: DatabaseConfig | None, primary: DatabaseManager | None) -> None:
        """Do not connect yet. Both are None for memory storage. Raises `StartupError` if the DSN is not valid."""
        self.manager: DatabaseManager | None = None
        self.lag = ReplicationLag()
        self.counters = {"reads": 0, "reads_by_primary": 0, "stale_reads": 0}
        """Reads that may lag, in this process so far, by the server that answered."""
        self._primary = primary
        self._max_lag = config.replica_max_lag if config else 0.0
        self._problem: ReplicaState | None = ReplicaState.UNKNOWN
        if config and primary and config.replica_url is not None:
            self.manager = DatabaseManager(config, Resilience(REPLICA_LIMITS), replica=True)
            primary.dependants.append(self.manager)

    @property
    def state(self) -> ReplicaState:
        """Return the current state."""
        if self.manager is None:
            return ReplicaState.NONE
        if self._problem is not None:
            return self._problem
        seconds = self.lag.seconds
        if seconds is None:
            return ReplicaState.UNKNOWN
        return ReplicaState.FIT if seconds <= self._max_lag else ReplicaState.LAGGING

    def status(self) -> dict[str, Any]:
        """Return the state, the lag in seconds (None if unknown) and the counters."""
        if self.manager is None:
            return {"status": ReplicaState.NONE.value}
        seconds = self.lag.seconds
        return {
            "status": self.state.value,
            "lag_seconds": None if seconds is None else round(seconds, 2),
            "max_lag_seconds": self._max_lag,
            **self.counters,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll both servers for the length of the block."""
        polls = []
        if self.manager is not None and self._primary is not None:
            polls = [partial(self._poll_primary, self._primary), partial(self._poll_replica, self.manager)]
        tasks = [asyncio.create_task(poll_forever(poll)) for poll in polls]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll_primary(self, primary: DatabaseManager) -> None:
        asked_at = time.monotonic()
        if primary.resilience.is_available:
            # Bypass the breaker: a failed poll must not open it.
            position = await primary.fetch_value_once(PRIMARY_POSITION)
        else:
            position = await primary.fetch_value(PRIMARY_POSITION)
        if position is not None:
            self.lag.record_primary(position, asked_at)

    async def _poll_replica(self, replica: DatabaseManager) -> None:
        problem: ReplicaState | None = ReplicaState.AWAY
        refusal = ""
        try:
            position = await replica.fetch_value(REPLICA_POSITION)
            problem = ReplicaState.NO_STANDBY if position is None else None
            if position is not None:
                self.lag.record_replica(position)
        except StorageUnavailableError as error:
            if isinstance(error.__cause__, asyncpg.PostgresError):  # such as a parameter in its link, or the password
                refusal = f": {error.__cause__.args[0]}"
            raise
        finally:
            if problem is not self._problem:
                log = logger.warning if refusal else logger.info
                log("replica", reason=f"{problem or 'connected'}{refusal}")
            self._problem = problem


async def poll_forever(poll: Callable[[], Awaitable[None]]) -> None:
    """Repeat `poll`, whatever error it raises."""
    while True:
        try:
            await poll()
        except Exception as error:  # noqa: BLE001 - the next poll may succeed
            logger.debug("replica_poll_failed", error=type(error).__name__)
        await asyncio.sleep(POLL_SECONDS)


class PostgresReplicaReads(Generic[Repositories]):
    """Implements `ReplicaReads`; `unit_of_work` is the primary's."""

    def __init__(
        self,
        unit_of_work: UnitOfWork[Repositories],
        replica: Replica,
        repositories: Callable[[AsyncSession], Repositories],
    ) -> None:
        self._unit_of_work = unit_of_work
        self._replica = replica
        self._repositories = repositories

    async def run(self, body: TransactionBody[Repositories, Result]) -> Result:
        replica = self._replica
        if replica.manager is None:
            return await self._unit_of_work.run(body, repeatable=True)
        was_fit = replica.state is ReplicaState.FIT
        if was_fit:
            with suppress(Exception):  # whatever it is, the primary decides
                result = await self._read_replica(replica.manager, body)
                replica.counters["reads"] += 1
                return result
        replica.counters["reads_by_primary"] += 1
        try:
            return await self._unit_of_work.run(body, repeatable=True)
        except (BusyError, RolledBackError):
            raise  # the primary is available
        except StorageUnavailableError:
            if was_fit or replica.state is ReplicaState.AWAY:
                raise
            # Read the replica however old its data is. Of two errors the primary's is the cause to report.
            as_of = replica.lag.as_of
            with suppress(Exception):
                result = await self._read_replica(replica.manager, body)
                replica.counters["stale_reads"] += 1
                note_stale(as_of)
                return result
            raise

    async def _read_replica(self, manager: DatabaseManager, body: TransactionBody[Repositories, Result]) -> Result:
        with limit_time(manager.resilience.limits.work_seconds):
            return await PostgresUnitOfWork(manager, self._repositories).run(body, repeatable=True)
