"""New guests are counted in the database, for all servers and across restarts."""

import asyncio

import httpx

from containers import Container
from shopassist.app import create_app
from shopassist.settings import GuestSettings, LimitSettings, Settings, Storage, StorageSettings
from tests.support.helpers import postgres_settings

STATUS = "/api/user/credits"


def build_container(url: str) -> Container:
    """Return a server's container; a network may have 50 new guests."""
    guests = GuestSettings(accounts_per_network=50)
    return Container(settings=postgres_settings(url).model_copy(update={"guests": guests}))


async def send_first_requests(container: Container, names: list[str]) -> list[int]:
    """Send the first request of new guests of one network concurrently; return their credits: 10, or 0 if refused."""
    transport = httpx.ASGITransport(create_app(container), client=("203.0.113.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get(STATUS, headers={"X-Session-ID": name}) for name in names))
    return [answer.json()["available_credits"] for answer in answers]


async def test_the_limit_holds_across_processes_and_restarts(database_url: str) -> None:
    """Two servers of one database, one of them restarted, admit 50 guests together."""
    one, two, started_anew = (build_container(database_url) for _ in range(3))
    try:
        first = await asyncio.gather(
            send_first_requests(one, [f"a{number}" for number in range(20)]),
            send_first_requests(two, [f"b{number}" for number in range(20)]),
        )
        assert [*first[0], *first[1]] == [10] * 40
        await one.shutdown()
        second = await asyncio.gather(
            send_first_requests(started_anew, [f"c{number}" for number in range(20)]),
            send_first_requests(two, [f"d{number}" for number in range(20)]),
        )
        assert sorted([*second[0], *second[1]]) == [0] * 30 + [10] * 10
        assert (
            await send_first_requests(started_anew, [f"{side}{number}" for number in range(20) for side in "ab"])
            == [10] * 40
        )
    finally:
        for container in (two, started_anew):
            await container.shutdown()


async def test_one_guest_in_several_processes_counts_once(database_url: str) -> None:
    """First requests of one guest to several servers count once; the surplus count is subtracted."""
    containers = [build_container(database_url) for _ in range(4)]
    try:
        for number in range(50):
            balances = await asyncio.gather(
                *(send_first_requests(container, [f"guest-{number}"]) for container in containers)
            )
            assert balances == [[10]] * 4
        assert await send_first_requests(containers[0], ["one-too-many"]) == [0]
    finally:
        for container in containers:
            await container.shutdown()


async def test_the_default_fits_networks_shared_by_many() -> None:
    """By default a carrier's address, which up to a thousand subscribers share, admits a guest of each."""
    limits = LimitSettings(reads_per_minute=10**6)
    container = Container(settings=Settings(storage=StorageSettings(storage=Storage.MEMORY), limits=limits))
    assert await send_first_requests(container, [f"subscriber-{number}" for number in range(1000)]) == [10] * 1000
    assert await send_first_requests(container, ["one-too-many"]) == [0]
    await container.shutdown()
