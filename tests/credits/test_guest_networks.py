"""New guests are counted in the database, for all servers and across restarts."""

import asyncio

import httpx

from containers import Container
from shopassist.app import create_app
from tests.support.helpers import postgres_settings

STATUS = "/api/user/credits"


async def send_first_requests(container: Container, names: list[str]) -> list[int]:
    """Send the first request of new guests of one network concurrently; return the status codes."""
    transport = httpx.ASGITransport(create_app(container), client=("203.0.113.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answers = await asyncio.gather(*(client.get(STATUS, headers={"X-Session-ID": name}) for name in names))
    return [answer.status_code for answer in answers]


async def test_the_limit_holds_across_processes_and_restarts(database_url: str) -> None:
    """Two servers of one database, one of them restarted, admit 50 guests together."""
    one, two, started_anew = (Container(settings=postgres_settings(database_url)) for _ in range(3))
    try:
        first = await asyncio.gather(
            send_first_requests(one, [f"a{number}" for number in range(20)]),
            send_first_requests(two, [f"b{number}" for number in range(20)]),
        )
        assert [*first[0], *first[1]] == [200] * 40
        await one.shutdown()
        second = await asyncio.gather(
            send_first_requests(started_anew, [f"c{number}" for number in range(20)]),
            send_first_requests(two, [f"d{number}" for number in range(20)]),
        )
        assert sorted([*second[0], *second[1]]) == [200] * 10 + [429] * 30
        assert (
            await send_first_requests(started_anew, [f"{side}{number}" for number in range(20) for side in "ab"])
            == [200] * 40
        )
    finally:
        for container in (two, started_anew):
            await container.shutdown()


async def test_one_guest_in_several_processes_counts_once(database_url: str) -> None:
    """First requests of one guest to several servers count once; the surplus count is subtracted."""
    containers = [Container(settings=postgres_settings(database_url)) for _ in range(4)]
    try:
        for number in range(50):
            statuses = await asyncio.gather(
                *(send_first_requests(container, [f"guest-{number}"]) for container in containers)
            )
            assert statuses == [[200]] * 4
        assert await send_first_requests(containers[0], ["one-too-many"]) == [429]
    finally:
        for container in containers:
            await container.shutdown()
