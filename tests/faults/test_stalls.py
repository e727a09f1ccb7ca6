"""A server that is slow for a moment is no outage: 32 callers, and commits or the whole server stalled."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import pytest

from tests.faults.conftest import NewServer
from tests.faults.test_database_faults import configured
from tests.support.databases import PostgresServer
from tests.support.load import Heard, Kind, Load
from tests.support.measurements import Figure
from tests.support.trial import START_SECONDS

pytestmark = pytest.mark.faults

CALLERS = 32
QUESTIONS_PER_USER = 40
"""A registered user has 50 credits."""

WARM_UP_SECONDS = 2.0
AFTERWARDS_SECONDS = 2.5
Stall = Callable[[PostgresServer], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stalled_commits(server: PostgresServer) -> AsyncIterator[None]:
    """Let commits wait, as on a disk that stalls, while the server answers everything else."""
    await configured(server, "SET synchronous_standby_names = 'nobody'")
    try:
        yield
    finally:
        await configured(server, "RESET synchronous_standby_names")


@asynccontextmanager
async def stalled_server(server: PostgresServer) -> AsyncIterator[None]:
    """Stop all processes of the server."""
    with server.frozen():
        yield


@contextmanager
def running_callers(load: Load) -> Iterator[list[Heard]]:
    """Let each caller ask new questions and read credits, one after another, for the length of the block."""
    heard: list[Heard] = []

    async def call(caller: int) -> None:
        number = 0
        while True:
            user = f"auth0|{caller}-{number // QUESTIONS_PER_USER}"
            heard.append(await load.ask(user, f"phone {caller} {number}"))
            heard.append(await load.send(Kind.CREDITS, caller))
            number += 1

    tasks = [asyncio.create_task(call(caller)) for caller in range(CALLERS)]
    try:
        yield heard
    finally:
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize("seconds", [0.9, 1.5, 3.0])
@pytest.mark.parametrize("stall", [stalled_commits, stalled_server])
async def test_stall(
    new_server: NewServer,
    create_token: Callable[[str], str],
    record: Callable[[Figure], None],
    postgres_server: PostgresServer,
    stall: Stall,
    seconds: float,
) -> None:
    """Nobody is refused for a stall of up to 1.5 s; after a longer one service is whole within half a second."""
    name = f"{stall.__name__.replace('_', ' ')} for {seconds:g} s, {CALLERS} callers"
    server = await asyncio.to_thread(new_server().wait_until_ready, START_SECONDS)
    load = Load(server.port, create_token)
    await load.know()
    with running_callers(load) as heard:
        await asyncio.sleep(WARM_UP_SECONDS)
        async with stall(postgres_server):
            await asyncio.sleep(seconds)
        ended_at = time.monotonic()
        await asyncio.sleep(AFTERWARDS_SECONDS)
    await load.hang_up()
    refused = [one for one in heard if one.failed]
    whole_after = max([0.0, *(one.ended - ended_at for one in refused)])
    figures = [Figure("neither answered nor 503 with Retry-After", sum(one.is_wrong for one in refused), 0)]
    if seconds <= 1.5:
        figures.append(Figure("refused", len(refused), 0))
    else:
        figures.append(Figure("whole again after (s)", round(whole_after, 2), 0.5))
    for figure in figures:
        record(figure.of(name))
    assert all(figure.holds for figure in figures), (figures, len(refused), len(heard))
