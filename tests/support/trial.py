"""A server of the product under load, a fault, and the measurements of its effect."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.ledger_check import audit_database
from tests.support.load import Heard, Kind, Load
from tests.support.measurements import Figure
from tests.support.servers import TestServer

START_SECONDS = 100.0
WARM_UP_SECONDS = 3.0
QUIET_SECONDS = 1.0
"""Time without a failure until service counts as recovered."""

PATIENCE_SECONDS = 15.0
TOGETHER = 20
"""Shoppers who repeat their question at the same time."""

CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'shopassist'"
)
KEPT_CONNECTIONS = 18
"""Connections that the pools keep after a peak: `DB_POOL_SIZE`, and 8 for hot statements."""

HOLDS = {"CREDIT_HOLD_TTL_SECONDS": "5", "QUERY_TIMEOUT_SECONDS": "4"}


@dataclass(slots=True)
class Fault:
    """Start and end of a fault (monotonic seconds)."""

    began: float
    ended: float = float("inf")


@dataclass(frozen=True, slots=True)
class Level:
    """Resources of the server: connections, and resident memory in kB."""

    connections: int
    memory: int


@dataclass(slots=True)
class Trial:
    """A server with shoppers, and its faults so far."""

    server: TestServer
    url: str
    load: Load
    faults: list[Fault] = field(default_factory=list)

    @contextmanager
    def fault(self) -> Iterator[None]:
        """Record a fault for the length of the block."""
        fault = Fault(time.monotonic())
        self.faults.append(fault)
        try:
            yield
        finally:
            fault.ended = time.monotonic()

    def during(self) -> list[Heard]:
        """Return the requests sent during faults."""
        return [one for one in self.load.heard if any(fault.began <= one.began < fault.ended for fault in self.faults)]

    async def recovered(self) -> None:
        """Wait until no request has failed for a while."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            since = time.monotonic() - QUIET_SECONDS
            if self.faults[-1].ended < since and not any(one.failed and one.ended > since for one in self.load.heard):
                return

    async def health(self) -> dict[str, Any]:
        """Return the server's report of its failure policy."""
        details = await asyncio.to_thread(self.server.call, "GET", "/health/detailed")
        figures: dict[str, Any] = details[1]["components"]["resilience"]
        return figures

    async def level(self) -> Level:
        """Return the server's present resources."""
        memory = get_resident_memory(self.server.process.pid)
        connection = await asyncpg.connect(self.url)
        try:
            return Level(await connection.fetchval(CONNECTIONS), memory)
        finally:
            await connection.close()

    async def ask_again(self) -> None:
        """Repeat each new question without an answer until there is one, as people do."""
        turns = asyncio.Semaphore(TOGETHER)
        answered = {one.number for one in self.load.heard if one.kind is Kind.NEW and one.answered}
        asked = {one.number for one in self.load.heard if one.kind is Kind.NEW}

        async def until_answered(number: int) -> None:
            async with turns, asyncio.timeout(30):
                while not (await self.load.again(number)).answered:
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(until_answered(number) for number in asked - answered))


@asynccontextmanager
async def run_trial(
    name: str, record: Callable[[Figure], None], server: TestServer, url: str, token: Callable[[str], str]
) -> AsyncIterator[Trial]:
    """Run a server under load for the length of the block, in which the test causes faults; then measure the effect.

    `url` is the database's own connection string, without a proxy. Raises `AssertionError` when a figure is beyond its
    limit.
    """
    trial = Trial(await asyncio.to_thread(server.wait_until_ready, START_SECONDS), url, Load(server.port, token))
    await trial.load.know()
    async with trial.load.running():
        await asyncio.sleep(WARM_UP_SECONDS)
        before = await trial.level()
        yield trial
        await trial.recovered()
    heard = list(trial.load.heard)
    await trial.ask_again()
    await trial.load.hang_up()
    after = await wait_for_release(trial, before)
    books = await audit_database(url, trial.load.heard)
    figures = [*measure_responses(heard, trial.faults), *compare_resources(before, after)]
    figures += [
        Figure("acknowledged writes lost", len(books.lost), 0),
        Figure("doubled", len(books.doubled), 0),
        Figure("accounts that drift", books.drifting_accounts, 0),
    ]
    for figure in figures:
        record(figure.of(name))
    beyond = [f"{figure.name}: {figure.value}" for figure in figures if not figure.holds]
    assert not beyond, (beyond, books, count_statuses(heard), get_slowest(heard))


async def wait_for_release(trial: Trial, before: Level) -> Level:
    """Return the server's resources after it had time to release them."""
    after = await trial.level()
    deadline = time.monotonic() + 5
    while after.connections > max(before.connections, KEPT_CONNECTIONS) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        after = await trial.level()
    return after


def get_resident_memory(pid: int) -> int:
    """Return the resident memory of a process, in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def count_statuses(heard: list[Heard]) -> dict[tuple[str, int], int]:
    """Return the number of responses by status."""
    counted: dict[tuple[str, int], int] = {}
    for one in heard:
        counted[one.kind.value, one.status] = counted.get((one.kind.value, one.status), 0) + 1
    return counted


def get_slowest(heard: list[Heard]) -> list[tuple[str, int, float]]:
    """Return the slowest request."""
    waited = sorted(heard, key=lambda one: -one.seconds)[:10]
    return [(one.kind.value, one.status, round(one.seconds, 2)) for one in waited]


def compare_resources(before: Level, after: Level) -> list[Figure]:
    """Return connections and memory, relative to those before the fault."""
    return [
        Figure(
            "connections afterwards ÷ level",
            round(after.connections / max(before.connections, KEPT_CONNECTIONS), 2),
            1.1,
        ),
        Figure("memory afterwards ÷ level", round(after.memory / before.memory, 3), 1.1),
    ]


def measure_responses(heard: list[Heard], faults: list[Fault]) -> list[Figure]:
    """Return the effect on shoppers."""
    ends = [fault.began for fault in faults[1:]] + [float("inf")]
    slowest, whole_after, meanwhile = 0.0, 0.0, []
    for fault, end in zip(faults, ends, strict=True):
        concerned = [one for one in heard if one.ended >= fault.began and one.began < end]
        recovery = max([0.0, *(one.ended - fault.ended for one in concerned if one.failed)])
        whole_after = max(whole_after, recovery)
        during = [one for one in concerned if one.began <= fault.ended + recovery]
        slowest = max(slowest, percentile([one.seconds for one in during], 0.99))
        meanwhile += during
    cached = [one.answered for one in meanwhile if one.kind is Kind.CACHED]
    return [
        Figure("requests", len(meanwhile), None),
        Figure("answered (%)", share([one.answered for one in meanwhile]), None),
        Figure("cached questions answered (%)", share(cached), 99.0, at_most=False),
        Figure("neither answered nor 503 with Retry-After", sum(one.is_wrong for one in heard), 0),
        Figure("p99 during the fault (s)", round(slowest, 2), 2.0),
        Figure("whole again after (s)", round(whole_after, 2), 5.0),
    ]


def share(holds: list[bool]) -> float:
    """Return the percentage that holds."""
    return round(100 * sum(holds) / max(1, len(holds)), 1)


def percentile(values: list[float], rank: float) -> float:
    """Return the percentile of `values`."""
    return sorted(values)[min(len(values) - 1, int(rank * len(values)))] if values else 0.0
