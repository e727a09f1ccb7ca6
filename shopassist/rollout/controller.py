"""Starts and controls a rollout, migrates users in the background and shows the state."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import count, islice
from uuid import uuid4

import structlog

from shopassist.audit.models import READ_ROLLOUT, TURN_ROLLOUT, AdminAct
from shopassist.catalog.models import Criteria, Product
from shopassist.db.ports import UnitOfWork
from shopassist.db.resilience import limit_time
from shopassist.errors import NoRolloutError, ShopAssistError, StartupError, StorageUnavailableError
from shopassist.maintenance.models import Leases
from shopassist.metrics import Labels, MetricFamily, SampleValue, counter, gauge
from shopassist.rollout.models import RolloutSide, RolloutStatus, Unmirrored
from shopassist.rollout.placement import UnmovableError
from shopassist.rollout.router import Router
from shopassist.settings import Storage
from shopassist.storage.repositories import Repositories

logger = structlog.get_logger(__name__)

STORAGES = (Storage.MEMORY, Storage.POSTGRES)
LEASE, LEASE_LIFETIME, LEASE_PATIENCE_SECONDS = "rollout", timedelta(seconds=15), 20.0
TICK_SECONDS = 1.0
NOTICES_TICKS, CACHE_TICKS = 5, 60
PAGE = 500
STEP_SECONDS = 2.0
"""Time limit of PostgreSQL for a step of the periodic work."""
CONCURRENT_MIGRATIONS = 8
BACK_BATCH_USERS, BACK_PAUSE_SECONDS = 100, 0.01
"""Users who are sent back at a time, and the pause after them, in which requests are served."""
BACK_SECONDS = 3.0
"""How long `migrate_all_back` waits for calls in progress; the users that they are about follow later."""
SCAN_SECONDS = 10.0
"""How often all users are checked when the percentage did not change."""
MIGRATIONS_PER_COLLECTION = 1_000
MAX_PRODUCTS = 20_000
"""Limit of the copy of the catalogue in memory: each question looks through all products."""

COPIED_PRODUCT_FIELDS = tuple(name for name in Product.model_fields if name not in {"id", "search"})
"""The fields that PostgreSQL does not compute itself."""

OTHER_SERVER_MESSAGE = (
    "Another server runs with STORAGE=rollout on this database. The in-memory side is one process's own: stop the "
    "other one, or wait 15 seconds if it has just been killed."
)


def freeze_garbage_collection() -> None:
    """Exempt all present objects from garbage collection.

    Rows stay for as long as the process. A full collection over those of 20,000 users stops the process for a second,
    and migrations cause one after the other.
    """
    gc.collect(1)
    gc.freeze()


class BackgroundMigration:
    """Migrates users to their assigned storage."""

    def __init__(self, router: Router) -> None:
        """Nothing is to be done yet."""
        self._router = router
        self._placement = router.placement
        self._is_unfinished = False
        self._next_scan = 0.0
        self._migrations = 0

    def request_scan(self) -> None:
        """Check all users at the next turn."""
        self._is_unfinished = True

    async def migrate_all_back(self) -> None:
        """Migrate all users to memory, except those of calls that take long."""
        self.request_scan()
        late: set[asyncio.Task[bool]] = set()
        users = iter(list(self._placement.in_postgres))
        while batch := list(islice(users, BACK_BATCH_USERS)):
            tasks = [asyncio.create_task(self._migrate(user_id)) for user_id in batch]
            late |= (await asyncio.wait(tasks, timeout=BACK_PAUSE_SECONDS))[1]
            self._count_migrations(len(batch))
        if late:
            _, later = await asyncio.wait(late, timeout=BACK_SECONDS)
            for task in later:
                task.cancel()

    async def migrate_misplaced(self) -> None:
        """Migrate all users who are not in their assigned storage, until PostgreSQL is found unavailable."""
        now = time.monotonic()
        if not self._is_unfinished and now < self._next_scan:
            return
        self._next_scan, self._is_unfinished = now + SCAN_SECONDS, False
        misplaced = self.find_misplaced(await self._placement.memory.rows.list_owners())
        while batch := list(islice(misplaced, CONCURRENT_MIGRATIONS)):
            if not all(await asyncio.gather(*map(self._migrate, batch))):
                self._is_unfinished = True
                if not self._placement.assignment.is_back:
                    return
            self._count_migrations(len(batch))

    async def refresh_mirrors(self) -> None:
        """Refresh the mirror of all users in `unmirrored`, until PostgreSQL is found unavailable."""
        for user_id in list(self._placement.unmirrored):
            async with self._router.hold(user_id):
                if user_id in self._placement.in_postgres:
                    await self._placement.refresh_mirror(user_id)
                    if user_id in self._placement.unmirrored:
                        return

    def find_misplaced(self, users_in_memory: Iterable[str]) -> Iterator[str]:
        """Yield the users to migrate, of those in PostgreSQL and those in memory."""
        assignment, in_postgres = self._placement.assignment, self._placement.in_postgres
        for user_id in list(in_postgres):
            if assignment.get_storage(user_id) is Storage.MEMORY and not self._placement.pinned[user_id]:
                yield user_id
        for user_id in {*users_in_memory, *self._placement.unmirrored}:
            if assignment.get_storage(user_id) is Storage.POSTGRES and user_id not in in_postgres:
                yield user_id

    def _count_migrations(self, count: int) -> None:
        self._migrations += count
        if self._migrations >= MIGRATIONS_PER_COLLECTION:
            self._migrations = 0
            freeze_garbage_collection()

    async def _migrate(self, user_id: str) -> bool:
        """Migrate a user to the assigned storage; return False when PostgreSQL is unavailable."""
        async with self._router.hold(user_id):
            try:
                await self._placement.migrate(user_id, self._placement.assignment.get_storage(user_id))
            except UnmovableError:
                return True
            except StorageUnavailableError:
                return False
        return True


class Rollout:
    """A rollout of this process. `begin` it once before the first request."""

    def __init__(self, router: Router, leases: Leases) -> None:
        """`leases`, in PostgreSQL, keep other processes from running a rollout at the same time."""
        self.router = router
        self._placement = router.placement
        self._migration = BackgroundMigration(router)
        self._leases = leases
        self._holder = uuid4().hex
        self.is_overtaken = False
        """Whether another server runs a rollout on the same database."""
        self._percent_changed = asyncio.Event()

    async def begin(self) -> None:
        """Copy what PostgreSQL has to the mirror. Raises `StartupError` and `StorageUnavailableError`."""
        give_up_at = time.monotonic() + LEASE_PATIENCE_SECONDS
        while not await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME):
            if time.monotonic() > give_up_at:
                raise StartupError(OTHER_SERVER_MESSAGE)
            await asyncio.sleep(0.5)
        await self._placement.sync_erasures()
        await self._placement.copy_notices()
        await self._copy_catalogue()
        postgres, after = self._placement.postgres.rows, ""
        while page := await postgres.list_owners(PAGE, after):
            for user_id, rows in (await postgres.read(page)).items():
                await self._placement.adopt(user_id, rows)
            await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME)
            freeze_garbage_collection()
            after = page[-1]
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
            self._placement.shadowed.clear()
        assignment.percent, assignment.is_back = percent, False
        self._migration.request_scan()
        self._percent_changed.set()

    async def back(self) -> None:
        """Send all users back to memory at once, without PostgreSQL.

        A user with a call in progress follows when it has ended; that is not waited for long.
        """
        assignment = self._placement.assignment
        assignment.percent, assignment.is_back = 0.0, True
        await self._migration.migrate_all_back()

    async def get_status(self) -> RolloutStatus:
        """Return the state of the rollout."""
        placement, counters = self._placement, self._placement.counters
        in_memory = await placement.memory.rows.list_owners()
        users = {Storage.MEMORY: len(in_memory), Storage.POSTGRES: len(placement.in_postgres)}
        memory, postgres = (
            RolloutSide(
                users=users[storage],
                asked=counters.asked[storage],
                failed=counters.failed[storage],
                moved_here=counters.moved[storage],
                moves_failed=counters.move_failures[storage],
            )
            for storage in STORAGES
        )
        return RolloutStatus(
            percent=placement.assignment.percent,
            is_back=placement.assignment.is_back,
            is_shadowing=placement.assignment.is_shadowing,
            is_overtaken=self.is_overtaken,
            memory=memory,
            postgres=postgres,
            to_move=sum(1 for _ in self._migration.find_misplaced(in_memory)),
            compared=counters.compared.total(),
            differences=dict(counters.differences),
            shadow_failures=counters.shadow_failures,
            unmirrored=[Unmirrored(user_id=user_id, since=since) for user_id, since in placement.unmirrored.items()],
        )

    def collect_metrics(self) -> Iterator[MetricFamily]:
        """Yield the metrics of the rollout."""
        placement, counters = self._placement, self._placement.counters
        for name, help_, value in (
            ("percent", "Share of users that the dial sends to PostgreSQL.", placement.assignment.percent),
            ("users_in_postgres", "Users who are there.", len(placement.in_postgres)),
            ("unmirrored", "Users with a change that memory may lack.", len(placement.unmirrored)),
            ("overtaken", "1 when another server runs one as well.", int(self.is_overtaken)),
        ):
            yield gauge(f"shopassist_rollout_{name}", help_, value)
        for name, help_, counted in (
            ("asked", "What was asked about users, by the side that answered.", counters.asked),
            ("failed", "What was asked and found no answer, by side.", counters.failed),
            ("moves", "Users moved, by the storage that they were moved to.", counters.moved),
            (
                "move_failures",
                "Moves that did not succeed, by the side that they were to go to.",
                counters.move_failures,
            ),
        ):
            by_storage: dict[Labels, SampleValue] = {(one.value,): float(counted[one]) for one in STORAGES}
            yield counter(f"shopassist_rollout_{name}", help_, by_storage, "side")
        compared, differences = counters.compared, counters.differences
        by_operation: dict[Labels, SampleValue] = {(name,): float(differences[name]) for name in compared}
        yield counter("shopassist_rollout_compared", "Answers of both sides that were compared.", compared.total())
        yield counter(
            *("shopassist_rollout_differences", "Answers of the two sides that were not the same.", by_operation),
            "operation",
        )
        yield counter(
            "shopassist_rollout_shadow_failures", "Questions the other side did not answer.", counters.shadow_failures
        )

    async def _work(self) -> None:
        for tick in count():
            for is_due, step in (
                (True, self._renew_lease),
                (True, self._placement.flush_audit_entries),
                (tick % CACHE_TICKS == 0, self._clear_expired_answers),
                (tick % NOTICES_TICKS == 0, self._placement.copy_notices),
                (True, self._migration.refresh_mirrors),
                (True, self._migration.migrate_misplaced),
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
        await self._placement.memory.get("unit_of_work").run(lambda work: work.cache.cleanup_expired_cache(sys.maxsize))

    async def _copy_catalogue(self) -> None:
        memory, postgres = (
            backend.get("unit_of_work") for backend in (self._placement.memory, self._placement.postgres)
        )
        products = await postgres.run(lambda work: work.catalog.search(Criteria(), MAX_PRODUCTS), repeatable=True)
        copies = [Product(**{name: getattr(product, name) for name in COPIED_PRODUCT_FIELDS}) for product in products]
        await memory.run(lambda work: work.catalog.upsert(copies))
        if len(products) == MAX_PRODUCTS:
            logger.warning("rollout_catalogue_cut", count=MAX_PRODUCTS)


class RolloutService:
    """Shows and controls the rollout. Each method raises `NoRolloutError` where the server does not run one."""

    def __init__(self, rollout: Rollout | None, unit_of_work: UnitOfWork[Repositories]) -> None:
        """Record what administrators do by `unit_of_work`."""
        self._rollout = rollout
        self._unit_of_work = unit_of_work

    async def get_status(self, act: AdminAct) -> RolloutStatus:
        """Return the state. A status that names users is recorded in the audit first, as `act`."""
        status = await self._get_rollout().get_status()
        if status.unmirrored:
            await self._record(act, READ_ROLLOUT, None)
        return status

    async def set(self, percent: float, act: AdminAct) -> RolloutStatus:
        """Set the percentage and record it."""
        rollout = self._get_rollout()
        rollout.set(percent)
        await self._record(act, TURN_ROLLOUT, f"{percent:g} %")
        return await rollout.get_status()

    async def back(self, act: AdminAct) -> RolloutStatus:
        """Send all users back to memory, then record it, which may take a while without PostgreSQL."""
        rollout = self._get_rollout()
        await rollout.back()
        await self._record(act, TURN_ROLLOUT, "back")
        return await rollout.get_status()

    def _get_rollout(self) -> Rollout:
        if self._rollout is None:
            raise NoRolloutError
        return self._rollout

    async def _record(self, act: AdminAct, action: str, target: str | None) -> None:
        act.act, act.target = action, target
        await self._unit_of_work.run(lambda work: work.admin_audit.record(act), repeatable=True)
