"""A primary that dies, freezes or is fenced while a standby is promoted; and a replica that lags or is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr

from containers import Container
from shopassist.consent.models import UserConsentCreate
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.db.replica import ReplicaState
from shopassist.errors import StorageUnavailableError
from shopassist.settings import Settings
from shopassist.settings.database import DatabaseConfig
from tests.support.helpers import postgres_settings
from tests.support.servers import TestServer
from tests.support.shoppers import Shoppers
from tests.support.standbys import Cluster, Postgres, run_cluster

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

Tell = Callable[..., None]
HOLDS = {"CREDIT_HOLD_TTL_SECONDS": "3", "QUERY_TIMEOUT_SECONDS": "2.5"}
RECOVERY_SECONDS = 10
FALLBACK_SECONDS = 1


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Start a migrated primary without standbys."""
    with run_cluster() as cluster:
        asyncio.run(migrate.upgrade(normalise_dsn(cluster.primary.url)))
        yield cluster


@pytest.fixture
async def synchronous(cluster: Cluster) -> Postgres:
    """Start a standby of `cluster` that commits synchronously."""
    standby = cluster.standby()
    await cluster.primary.set("synchronous_standby_names", "*")
    await until(lambda: is_synchronous(cluster.primary))
    return standby


async def is_synchronous(primary: Postgres) -> bool:
    """Return whether the primary waits for a standby."""
    return bool(await primary.query("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"))


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 30) -> float:
    """Wait until a condition holds, and return the seconds it took."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_promoted(tmp_path: Path, cluster: Cluster, synchronous: Postgres, tell: Tell) -> None:
    """The primary is killed under load, its synchronous standby promoted: nothing acknowledged is lost or doubled."""
    primary, standby = cluster.primary, synchronous
    server = TestServer(tmp_path, cluster.link(primary, standby), **HOLDS)
    try:
        await asyncio.to_thread(server.wait_until_ready, 90)
        shoppers = Shoppers(server.port)
        async with shoppers.shopping():
            await asyncio.sleep(3)
            primary.kill()
            killed_at = time.monotonic()
            await asyncio.sleep(1)
            await standby.promote()
            promoted_at = time.monotonic()
            await until(lambda: have_answers_after(shoppers, promoted_at))
            await asyncio.sleep(3)
        recovery = min(at for at in shoppers.answered_at if at > promoted_at) - promoted_at
        waits = sorted(seconds for began, seconds in shoppers.seconds if killed_at <= began <= promoted_at + recovery)
        container = Container(settings=postgres_settings(standby.url))
        await until(lambda: no_holds(standby))
        report = await container.ledger_reconciliation().verify()
        spent = dict(await rows(standby, "SELECT user_id, 10 - available_credits FROM user_credits"))
        await container.shutdown()
    finally:
        server.kill()
    lost, doubled = shoppers.lost_and_doubled(spent)
    p99 = waits[int(0.99 * len(waits))]
    assert report is not None
    tell(
        "standby promoted",
        questions=shoppers.asked.total(),
        refused_503=shoppers.statuses[503],
        whole_after_promotion_s=round(recovery, 2),
        p99_s=round(p99, 2),
        lost=lost,
        doubled=doubled,
        drifting_accounts=report.drifting_accounts,
    )
    assert set(shoppers.statuses) <= {200, 409, 503}
    assert (lost, doubled, report.drifting_accounts) == (0, 0, 0)
    assert recovery < RECOVERY_SECONDS
    assert p99 < 4  # 2 s on a machine that does nothing else


async def have_answers_after(shoppers: Shoppers, instant: float) -> bool:
    """Return whether a request was answered since."""
    return shoppers.answered_at[-1] > instant


async def no_holds(server: Postgres) -> bool:
    """Return whether no credit is held."""
    return await server.query("SELECT count(*) FROM credit_holds") == 0


async def rows(server: Postgres, query: str) -> list[Any]:
    """Return the rows of a query."""
    connection = await asyncpg.connect(server.url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


@asynccontextmanager
async def spending(container: Container, user: str) -> AsyncIterator[list[float]]:
    """Debit repeatedly for the length of the block, and record the time of each acknowledgement."""
    acknowledged: list[float] = []
    await container.credit_service().get_user_credits(user)
    enough = False

    async def spend() -> None:
        while not enough:
            try:
                if await container.credit_service().deduct_credit(user):
                    acknowledged.append(time.monotonic())
            except StorageUnavailableError:
                pass
            await asyncio.sleep(0.1)

    task = asyncio.create_task(spend())
    try:
        yield acknowledged
    finally:
        enough = True
        await task


async def back_after(acknowledged: list[float], instant: float) -> float:
    """Return the seconds from a time to the next acknowledged debit."""

    async def are_back() -> bool:
        return bool(acknowledged) and acknowledged[-1] > instant

    await until(are_back)
    return next(at for at in acknowledged if at > instant) - instant


async def test_fenced(cluster: Cluster, tell: Tell) -> None:
    """The old primary only refuses writes (25006): the new primary is used without a restart."""
    primary, standby = cluster.primary, cluster.standby()
    container = Container(settings=postgres_settings(cluster.link(primary, standby)))
    async with spending(container, "a") as acknowledged:
        await until(lambda: asyncio.sleep(0, len(acknowledged) > 3))
        await primary.set("default_transaction_read_only", "on")
        await until(lambda: is_caught_up(primary, standby))
        await standby.promote()
        seconds = await back_after(acknowledged, time.monotonic())
    await container.consent_service().create_consent("a", UserConsentCreate())
    assert await standby.query("SELECT count(*) FROM user_consents") == 1
    spent = await standby.query("SELECT 50 - available_credits FROM user_credits")
    await container.shutdown()
    tell("primary fenced, standby promoted", whole_after_s=round(seconds, 2), lost=len(acknowledged) - int(str(spent)))
    assert spent == len(acknowledged)
    assert seconds < RECOVERY_SECONDS


async def is_caught_up(primary: Postgres, standby: Postgres) -> bool:
    """Return whether the standby has everything that the primary wrote."""
    position = await primary.query("SELECT pg_current_wal_flush_lsn()::text")
    return bool(await standby.query("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position))


async def test_frozen_and_back(cluster: Cluster, synchronous: Postgres, tell: Tell) -> None:
    """A primary that accepts bytes without answering is abandoned, and gets no writes after it returns."""
    primary, standby = cluster.primary, synchronous
    settings = postgres_settings(cluster.link(primary, standby))
    container = Container(settings=settings)
    async with spending(container, "a") as acknowledged:
        await until(lambda: asyncio.sleep(0, len(acknowledged) > 3))
        primary.freeze()
        await asyncio.sleep(1)
        await standby.promote()
        seconds = await back_after(acknowledged, time.monotonic())
        primary.thaw()
        await until(lambda: asyncio.sleep(0, acknowledged[-1] > time.monotonic() - 0.3))
        new = Container(settings=settings)
        await new.credit_service().get_user_credits("b")
        assert await standby.query("SELECT count(*) FROM user_credits WHERE user_id = 'b'") == 1
        await new.shutdown()
    spent = int(str(await standby.query("SELECT 50 - available_credits FROM user_credits WHERE user_id = 'a'")))
    report = await container.ledger_reconciliation().verify()
    await container.shutdown()
    tell("primary frozen, standby promoted", whole_after_s=round(seconds, 2), lost=max(0, len(acknowledged) - spent))
    assert report is not None
    assert report.drifting_accounts == 0
    assert spent >= len(acknowledged)
    assert seconds < RECOVERY_SECONDS


@pytest.fixture(scope="module")
def followed() -> Iterator[tuple[Cluster, Postgres]]:
    """Start a primary and a replica; every test leaves them running and in sync."""
    with run_cluster() as cluster:
        asyncio.run(migrate.upgrade(normalise_dsn(cluster.primary.url)))
        yield cluster, cluster.standby()


@pytest.fixture
async def reading(followed: tuple[Cluster, Postgres]) -> AsyncIterator[Container]:
    """Build a container on both that polls the replica, and wait until it is usable."""
    cluster, replica = followed
    database = DatabaseConfig(
        database_url=SecretStr(cluster.primary.url), replica_url=SecretStr(replica.url), replica_max_lag=3
    )
    container = Container(settings=Settings(database=database))
    async with container.replica().running():
        await until(lambda: is_state(container, ReplicaState.FIT))
        yield container
    await container.shutdown()


async def is_state(container: Container, state: ReplicaState) -> bool:
    """Return whether the replica is in that state."""
    return bool(container.replica().state is state)


async def read(container: Container, seconds: float) -> list[float]:
    """Read repeatedly what may lag; return the duration of each read. Raises what a read raises."""
    waits, until_then = [], time.monotonic() + seconds
    while time.monotonic() < until_then:
        began = time.monotonic()
        await container.consent_service().list_consents(10)
        waits.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return waits


async def test_replica_of_an_idle_primary(reading: Container, followed: tuple[Cluster, Postgres], tell: Tell) -> None:
    """It is used and counts as in sync however long nothing was written, although its last replayed commit is old."""
    _, replica = followed
    await reading.consent_service().create_consent(f"auth0|{uuid4().hex}", UserConsentCreate())
    await asyncio.sleep(4)
    told = await replica.query("SELECT extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8")
    before = reading.replica().status()
    await reading.consent_service().list_consents()
    after = reading.replica().status()
    tell("replica of an idle primary", lag_s=after["lag_seconds"], last_commit_replayed_s=round(float(str(told)), 1))
    assert after["reads"] == before["reads"] + 1
    assert after["lag_seconds"] < 3 <= float(str(told))


async def test_replica_behind(reading: Container, followed: tuple[Cluster, Postgres], tell: Tell) -> None:
    """10 s behind it is not used: a new row is in the list within a second, and no read fails."""
    _, replica = followed
    await replica.set("recovery_min_apply_delay", "10s")
    user = f"auth0|{uuid4().hex}"
    reads = asyncio.create_task(read(reading, 9))
    try:
        written = asyncio.create_task(write_again_and_again(reading))
        await until(lambda: is_state(reading, ReplicaState.LAGGING), 15)
        await reading.consent_service().create_consent(user, UserConsentCreate())
        began = time.monotonic()
        await until(lambda: is_listed(reading, user))
        seen_after = time.monotonic() - began
        waits = sorted(await reads)
        lag = reading.replica().status()["lag_seconds"]
        assert reading.replica().state is ReplicaState.LAGGING
        written.cancel()
    finally:
        await replica.set("recovery_min_apply_delay", "0")
    tell(
        "replica 10 s behind", lag_s=lag, new_row_seen_after_s=round(seen_after, 3), slowest_read_s=waits[-1], failed=0
    )
    assert seen_after < FALLBACK_SECONDS
    assert 3 < lag < 20
    await until(lambda: is_state(reading, ReplicaState.FIT))


async def write_again_and_again(container: Container) -> None:
    """Write repeatedly, so that the replica lags."""
    while True:
        await container.consent_service().create_consent(f"auth0|{uuid4().hex}", UserConsentCreate())
        await asyncio.sleep(0.2)


async def is_listed(container: Container, user: str) -> bool:
    """Return whether the list, which may lag, has the user."""
    return user in {record.user_id for record in await container.consent_service().list_consents()}


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_replica_gone(reading: Container, followed: tuple[Cluster, Postgres], tell: Tell, fault: str) -> None:
    """The primary answers each read within a second, none fails; the replica is used again after its return."""
    _, replica = followed
    reads = asyncio.create_task(read(reading, 4))
    await asyncio.sleep(1)
    replica.kill() if fault == "killed" else replica.freeze()
    waits = sorted(await reads)
    assert reading.replica().state in {ReplicaState.AWAY, ReplicaState.LAGGING}
    if fault == "killed":
        replica.start()
    replica.thaw()
    back = await until(lambda: is_state(reading, ReplicaState.FIT))
    before = reading.replica().status()["reads"]
    await reading.consent_service().list_consents(1)
    assert reading.replica().status()["reads"] == before + 1
    tell(
        f"replica {fault}", reads=len(waits), slowest_read_s=round(waits[-1], 2), failed=0, back_after_s=round(back, 2)
    )
    assert waits[-1] < 2 * FALLBACK_SECONDS  # 1 s on a machine that does nothing else


async def test_primary_gone(reading: Container, followed: tuple[Cluster, Postgres], tell: Tell) -> None:
    """Reads that may lag go to the replica; credits and consent decisions are refused."""
    cluster, _ = followed
    cluster.primary.kill()
    try:
        waits = sorted(await read(reading, 5))
        with pytest.raises(StorageUnavailableError):
            await reading.consent_service().get_consent("a")
        with pytest.raises(StorageUnavailableError):
            await reading.credit_service().check_credits("a")
        figures = reading.replica().status()
    finally:
        cluster.primary.start()
    tell("primary gone, replica there", reads=len(waits), stale_reads=figures["stale_reads"], slowest_read_s=waits[-1])
    assert figures["stale_reads"] > 0
    await until(lambda: is_state(reading, ReplicaState.FIT))
