"""Starts and controls a rollout, and does its periodic work."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

import structlog

from shopassist.audit.models import READ_ROLLOUT, TURN_ROLLOUT, AdminAct
from shopassist.catalog.criteria import Criteria
from shopassist.catalog.models import Product
from shopassist.db.resilience import limit_time
from shopassist.errors import NoRolloutError, ShopAssistError, StartupError, StorageUnavailableError
from shopassist.maintenance.ports import Leases
from shopassist.rollout.assignment import Side
from shopassist.rollout.background import BackgroundMigration, freeze_garbage_collection
from shopassist.rollout.models import RolloutSide, RolloutStatus, Unmirrored
from shopassist.rollout.router import Router
from shopassist.storage import UnitOfWork

logger = structlog.get_logger(__name__)

LEASE, LEASE_LIFETIME, LEASE_PATIENCE_SECONDS = "rollout", timedelta(seconds=15), 20.0
TICK_SECONDS = 1.0
NOTICES_SECONDS, CACHE_SECONDS = 5.0, 60.0
PAGE = 500
STEP_SECONDS = 2.0
"""How long PostgreSQL may take for a step of the work behind requests."""
MAX_PRODUCTS = 20_000
"""Products of which memory takes a copy: it looks through all of them for each question."""

COPIED_PRODUCT_FIELDS = tuple(name for name in Product.model_fields if name not in {"id", "search"})
"""What a product has of its own; PostgreSQL computes what it searches."""

OTHER_SERVER_MESSAGE = (
    "Another server runs with STORAGE=rollout on this database. The in-memory side is one process's own: stop the "
    "other one, or wait 15 seconds if it has just been killed."
)


class Rollout:
    """What an operator turns and looks at; `begin` it once, before anything is asked."""

    def __init__(self, routing: Router, leases: Leases) -> None:
        """`leases`, in PostgreSQL, let one process at a time do this."""
        self.routing = routing
        self._residence = routing.residence
        self._mover = BackgroundMigration(routing)
        self._leases = leases
        self._holder = uuid4().hex
        self.is_overtaken = False
        """Whether another server runs a rollout on the same database by now."""
        self._turned = asyncio.Event()
        self._next: dict[str, float] = {}

    async def begin(self) -> None:
        """Take a copy of all that PostgreSQL has. Raises `StartupError` and `StorageUnavailableError`."""
        give_up_at = time.monotonic() + LEASE_PATIENCE_SECONDS
        while not await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME):
            if time.monotonic() > give_up_at:
                raise StartupError(OTHER_SERVER_MESSAGE)
            await asyncio.sleep(0.5)
        await self._residence.know_erased()
        await self._copy_notices()
        await self._copy_catalogue()
        postgres, after = self._residence.postgres.state, ""
        while page := await postgres.owners(PAGE, after):
            for user_id, rows in (await postgres.read(page)).items():
                await self._residence.begin_with(user_id, rows)
            await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME)
            freeze_garbage_collection()
            after = page[-1]
        logger.info("rollout_begun", count=len(self._residence.in_postgres))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Move people, and keep both sides in step, for the length of the block."""
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self.routing.close()
            with suppress(ShopAssistError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._residence.send_acts()
                    await self._leases.release(LEASE, self._holder)

    def set(self, percent: float) -> None:
        """Turn the dial; people move when they next ask, and without asking soon after."""
        dial = self._residence.dial
        if dial.is_back:  # meanwhile nothing was done in PostgreSQL
            self._residence.shadowed.clear()
        dial.percent, dial.is_back = percent, False
        self._mover.look()
        self._turned.set()

    async def back(self) -> None:
        """Send everybody back to memory at once, without asking PostgreSQL for anything.

        Whoever has something under way is back as soon as that has ended, which is not waited for for long.
        """
        dial = self._residence.dial
        dial.percent, dial.is_back = 0.0, True
        await self._mover.all_back()

    async def status(self) -> RolloutStatus:
        """Where it stands."""
        residence, figures = self._residence, self._residence.figures
        in_memory = await residence.memory.state.owners(2**31)
        users = {Side.MEMORY: len(in_memory), Side.POSTGRES: len(residence.in_postgres)}
        memory, postgres = (
            RolloutSide(
                users=users[side],
                asked=figures.asked[side],
                failed=figures.failed[side],
                moved_here=figures.moved[side],
                moves_failed=figures.move_failures[side],
            )
            for side in Side
        )
        return RolloutStatus(
            percent=residence.dial.percent,
            is_back=residence.dial.is_back,
            is_shadowing=residence.dial.is_shadowing,
            is_overtaken=self.is_overtaken,
            memory=memory,
            postgres=postgres,
            to_move=sum(1 for _ in self._mover.misplaced(in_memory)),
            compared=figures.compared.total(),
            differences=dict(figures.differences),
            shadow_failures=figures.shadow_failures,
            unmirrored=[Unmirrored(user_id=who, since=since) for who, since in residence.unmirrored.items()],
        )

    async def _work(self) -> None:
        steps = (
            self._renew,
            self._residence.send_acts,
            self._in_step,
            self._mover.mirror_missing,
            self._mover.move_misplaced,
        )
        while True:
            for step in steps:
                try:
                    with limit_time(STEP_SECONDS):
                        await step()
                except StorageUnavailableError:
                    continue  # what needs no PostgreSQL goes on without it
                except Exception as error:  # noqa: BLE001 - this must go on for as long as the process serves
                    logger.error("rollout_work_failed", step=step.__name__, error=type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._turned.wait()
            self._turned.clear()

    async def _renew(self) -> None:
        self.is_overtaken = not await self._leases.acquire(LEASE, self._holder, LEASE_LIFETIME)
        if self.is_overtaken:
            logger.error("rollout_lease_lost", reason=OTHER_SERVER_MESSAGE)

    async def _in_step(self) -> None:
        if self._is_due("cache", CACHE_SECONDS):
            await self._residence.memory.unit_of_work.run(lambda work: work.cache.cleanup_expired_cache(sys.maxsize))
        if self._is_due("notices", NOTICES_SECONDS):
            await self._copy_notices()

    def _is_due(self, what: str, every_seconds: float) -> bool:
        now = time.monotonic()
        if self._next.get(what, 0.0) > now:
            return False
        self._next[what] = now + every_seconds
        return True

    async def _copy_notices(self) -> None:
        unit_of_work = self._residence.postgres.unit_of_work
        published = await unit_of_work.run(lambda work: work.notices.list_published(), repeatable=True)
        known = {notice.id for notice in await self._residence.memory.consent_lookup.list_published()}
        if new := [notice.id for notice in published if notice.id not in known]:
            texts = await unit_of_work.run(lambda work: work.notices.get_notices(new), repeatable=True)
            await self._residence.know_notices(texts)

    async def _copy_catalogue(self) -> None:
        residence = self._residence
        products = await residence.postgres.unit_of_work.run(
            lambda work: work.catalog.search(Criteria(), MAX_PRODUCTS), repeatable=True
        )
        copies = [Product(**{name: getattr(product, name) for name in COPIED_PRODUCT_FIELDS}) for product in products]
        await residence.memory.unit_of_work.run(lambda work: work.catalog.upsert(copies))
        if len(products) == MAX_PRODUCTS:
            logger.warning("rollout_catalogue_cut", count=MAX_PRODUCTS)


class RolloutService:
    """Shows and turns the dial. Each method raises `NoRolloutError` where the server does not run a rollout."""

    def __init__(self, rollout: Rollout | None, unit_of_work: UnitOfWork) -> None:
        """Acts go to the audit by `unit_of_work`: to memory, when PostgreSQL is away, and from there later."""
        self._rollout = rollout
        self._unit_of_work = unit_of_work

    async def status(self, act: AdminAct) -> RolloutStatus:
        """Where it stands. `act`, of whoever looks, goes to the audit first where people are named."""
        status = await self._running().status()
        if status.unmirrored:
            await self._record(act, READ_ROLLOUT, None)
        return status

    async def set(self, percent: float, act: AdminAct) -> RolloutStatus:
        """Turn the dial."""
        rollout = self._running()
        rollout.set(percent)
        await self._record(act, TURN_ROLLOUT, f"{percent:g} %")
        return await rollout.status()

    async def back(self, act: AdminAct) -> RolloutStatus:
        """Send everybody back to memory at once; only then is it written down, which may take a while."""
        rollout = self._running()
        await rollout.back()
        await self._record(act, TURN_ROLLOUT, "back")
        return await rollout.status()

    def _running(self) -> Rollout:
        if self._rollout is None:
            raise NoRolloutError
        return self._rollout

    async def _record(self, act: AdminAct, what: str, target: str | None) -> None:
        act.act, act.target = what, target
        await self._unit_of_work.run(lambda work: work.admin_audit.record(act), repeatable=True)
