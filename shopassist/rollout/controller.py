"""Starts and controls a rollout, migrates users in the background and shows the state."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from itertools import count, islice
from uuid import uuid4

import structlog

from shopassist.catalog.models import Criteria, Product
from shopassist.db.resilience import limit_time
from shopassist.errors import ShopAssistError, StartupError, StorageUnavailableError
from shopassist.maintenance.models import Leases
from shopassist.metrics import MetricFamily, counter, gauge
from shopassist.rollout.models import RolloutSide, RolloutStatus, Unmirrored
from shopassist.rollout.router import Router, UnmovableError
from shopassist.rollout.rows import get_values

logger = structlog.get_logger(__name__)

LEASE, LEASE_LIFETIME, LEASE_PATIENCE_SECONDS = "rollout", timedelta(seconds=15), 20.0
TICK_SECONDS = 1.0
NOTICES_TICKS, CACHE_TICKS = 5, 60
PAGE = 500
STEP_SECONDS = 2.0  # time limit of PostgreSQL for a step of the periodic work
CONCURRENT_MIGRATIONS = 8
SCAN_SECONDS = 10.0  # how often all users are checked when the percentage did not change
BACK_BATCH_USERS, BACK_PAUSE_SECONDS = 100, 0.01  # sent back at a time; then requests are served
BACK_SECONDS = 3.0  # how long `back` waits for calls in progress; the users that they are about follow later
MAX_PRODUCTS = 20_000  # in the copy of the catalogue in memory: each question looks through all products

OTHER_SERVER_MESSAGE = (
    "Another server runs with STORAGE=rollout on this database. The in-memory side is one process's own: stop the "
    "other one, or wait 15 seconds if it has just been killed."
)
COUNTERS_BY_SIDE = {
    "asked": ("asked", "What was asked about users, by the side that answered."),
    "failed": ("failed", "What was asked and found no answer, by side."),
    "moves": ("moved_here", "Users moved, by the storage that they were moved to."),
    "move_failures": ("moves_failed", "Moves that did not succeed, by the side that they were to go to."),
}
"""Metrics with their field in `RolloutSide` and their description."""


class Rollout:
    """A rollout of this process. `begin` it once before the first request."""

    def __init__(self, router: Router, leases: Leases) -> None:
        """`leases`, in PostgreSQL, keep other processes from running a rollout at the same time."""
        self.router = router
        self._placement = router.placement
        self._leases = leases
        self._holder = uuid4().hex
        self.is_overtaken = False
        """Whether another server runs a rollout on the same database."""
        self._percent_changed = asyncio.Event()
        self._next_scan = 0.0

    async def begin(self) -> None:
        """Copy what PostgreSQL has to memory. Raises `StartupError` and `StorageUnavailableError`."""
        give_up_at = time.monotonic() + LEASE_PATIENCE_SECONDS
        while not await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME):
            if time.monotonic() > give_up_at:
                raise StartupError(OTHER_SERVER_MESSAGE)
            await asyncio.sleep(0.5)
        await self._placement.sync_erasures()
        await self._placement.copy_notices()
        await self._copy_catalogue()
        postgres, after = self._placement.postgres_rows, ""
        while page := await postgres.list_owners(PAGE, after):
            for user_id, rows in (await postgres.read(page)).items():
                await self._placement.adopt(user_id, rows)
            await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME)
            after = page[-1]
        # Rows stay as long as the process; a full collection over those of 20,000 users would stop it for a second.
        gc.collect(1)
        gc.freeze()
        logger.info("rollout_begun", count=len(self._placement.in_postgres))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Migrate users and refresh copies for the length of the block."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.router.close()
            with suppress(ShopAssistError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._placement.flush_audit_entries()
                    await self._leases.release(LEASE, self._holder)

    def set(self, percent: float) -> None:
        """Set the percentage; users migrate with their next call, or soon after without one."""
        assignment = self._placement.assignment
        if assignment.is_back:  # meanwhile PostgreSQL was not kept up to date
            self._placement.copied.clear()
        assignment.percent, assignment.is_back = percent, False
        self._next_scan = 0.0
        self._percent_changed.set()

    async def back(self) -> None:
        """Send all users back to memory at once, without PostgreSQL.

        A user with a call in progress follows when it has ended; that is not waited for long.
        """
        assignment = self._placement.assignment
        assignment.percent, assignment.is_back = 0.0, True
        self._next_scan = 0.0
        late: set[asyncio.Task[bool]] = set()
        users = iter(list(self._placement.in_postgres))
        while batch := list(islice(users, BACK_BATCH_USERS)):
            tasks = [asyncio.create_task(self._migrate(user_id)) for user_id in batch]
            late |= (await asyncio.wait(tasks, timeout=BACK_PAUSE_SECONDS))[1]
        if late:
            for task in (await asyncio.wait(late, timeout=BACK_SECONDS))[1]:
                task.cancel()

    async def get_status(self) -> RolloutStatus:
        """Return the state of the rollout."""
        placement, counts = self._placement, self._placement.counts
        owners = set(await placement.memory_rows.list_owners())
        users = {"memory": len(owners - placement.in_postgres), "postgres": len(placement.in_postgres)}
        sides = {
            side: {"users": users[side], **{field: counts[name, side] for name, (field, _) in COUNTERS_BY_SIDE.items()}}
            for side in users
        }
        return RolloutStatus(
            **asdict(placement.assignment),
            memory=RolloutSide(**sides["memory"]),
            postgres=RolloutSide(**sides["postgres"]),
            is_overtaken=self.is_overtaken,
            to_move=sum(1 for _ in self._find_misplaced(owners)),
            compared=sum(self._get_by_operation("compared").values()),
            differences=self._get_by_operation("differences"),
            shadow_failures=counts["shadow_failures", ""],
            unmirrored=[Unmirrored(user_id=user_id, since=since) for user_id, since in placement.unmirrored.items()],
        )

    def collect_metrics(self) -> Iterator[MetricFamily]:
        """Yield the metrics of the rollout."""
        placement, counts = self._placement, self._placement.counts
        for name, help_, value in (
            ("percent", "Share of users that the dial sends to PostgreSQL.", placement.assignment.percent),
            ("users_in_postgres", "Users who are there.", len(placement.in_postgres)),
            ("unmirrored", "Users with a change that memory may lack.", len(placement.unmirrored)),
            ("overtaken", "1 when another server runs one as well.", int(self.is_overtaken)),
        ):
            yield gauge(f"shopassist_rollout_{name}", help_, value)
        for name, (_, help_) in COUNTERS_BY_SIDE.items():
            by_side = {side: float(counts[name, side]) for side in ("memory", "postgres")}
            yield counter(f"shopassist_rollout_{name}", help_, by_side, "side")
        compared = self._get_by_operation("compared")
        differences = {operation: float(counts["differences", operation]) for operation in compared}
        for name, help_, samples, *labels in (
            ("compared", "Answers of both sides that were compared.", float(sum(compared.values()))),
            ("differences", "Answers of the two sides that were not the same.", differences, "operation"),
            ("shadow_failures", "Questions the other side did not answer.", counts["shadow_failures", ""]),
        ):
            yield counter(f"shopassist_rollout_{name}", help_, samples, *labels)

    def _get_by_operation(self, name: str) -> dict[str, int]:
        return {label: number for (one, label), number in self._placement.counts.items() if one == name}

    def _find_misplaced(self, owners: Iterable[str]) -> Iterator[str]:
        """Yield the users to migrate, of those with rows in memory and all others who are known."""
        placement = self._placement
        for user_id in {*owners, *placement.in_postgres, *placement.unmirrored}:
            is_misplaced = placement.get_storage(user_id) is not placement.assignment.get_storage(user_id)
            if is_misplaced and not placement.is_pinned(user_id):
                yield user_id

    async def _migrate(self, user_id: str) -> bool:
        """Migrate a user to the assigned storage; return False when PostgreSQL is unavailable."""
        async with self.router.hold(user_id):
            try:
                await self._placement.migrate(user_id, self._placement.assignment.get_storage(user_id))
            except UnmovableError:
                return True
            except StorageUnavailableError:
                return False
        return True

    async def _migrate_misplaced(self) -> None:
        """Migrate all users who are not in their assigned storage, until PostgreSQL is found unavailable."""
        now = time.monotonic()
        if now < self._next_scan:
            return
        self._next_scan = now + SCAN_SECONDS
        misplaced = self._find_misplaced(await self._placement.memory_rows.list_owners())
        while batch := list(islice(misplaced, CONCURRENT_MIGRATIONS)):
            if not all(await asyncio.gather(*map(self._migrate, batch))):
                self._next_scan = 0.0
                if not self._placement.assignment.is_back:
                    return

    async def _refresh_mirrors(self) -> None:
        """Refresh the mirror of all users in `unmirrored`, until PostgreSQL is found unavailable."""
        for user_id in list(self._placement.unmirrored):
            async with self.router.hold(user_id):
                if user_id in self._placement.in_postgres:
                    await self._placement.refresh_copy(user_id)
                    if user_id in self._placement.unmirrored:
                        return

    async def _work(self) -> None:
        for tick in count():
            for is_due, step in (
                (True, self._renew_lease),
                (True, self._placement.flush_audit_entries),
                (tick % CACHE_TICKS == 0, self._clear_expired_answers),
                (tick % NOTICES_TICKS == 0, self._placement.copy_notices),
                (True, self._refresh_mirrors),
                (True, self._migrate_misplaced),
            ):
                if is_due:
                    await self._run_step(step)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._percent_changed.wait()
            self._percent_changed.clear()

    async def _run_step(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            with limit_time(STEP_SECONDS):
                await step()
        except StorageUnavailableError:
            return  # the next steps may not need PostgreSQL
        except Exception as error:  # noqa: BLE001 - the periodic work must go on
            logger.error("rollout_work_failed", step=step.__name__, error=type(error).__name__)

    async def _renew_lease(self) -> None:
        self.is_overtaken = not await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME)
        if self.is_overtaken:
            logger.error("rollout_lease_lost", reason=OTHER_SERVER_MESSAGE)

    async def _clear_expired_answers(self) -> None:
        await self._placement.memory.unit_of_work().run(lambda work: work.cache.cleanup_expired_cache(sys.maxsize))

    async def _copy_catalogue(self) -> None:
        memory, postgres = self._placement.memory.unit_of_work(), self._placement.postgres.unit_of_work()
        products = await postgres.run(lambda work: work.catalog.search(Criteria(), MAX_PRODUCTS), repeatable=True)
        await memory.run(lambda work: work.catalog.upsert([Product(**get_values(product)) for product in products]))
        if len(products) == MAX_PRODUCTS:
            logger.warning("rollout_catalogue_cut", count=MAX_PRODUCTS)
