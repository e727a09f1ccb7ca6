"""The chunks of a file staged by processes side by side: checking rows keeps a core busy."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import asyncpg
from sqlalchemy import make_url

from shopassist.db.embedded import die_with_parent
from shopassist.db.postgres import ddl
from shopassist.db.servers import Servers
from shopassist.ops.state.export import PATIENT
from shopassist.ops.state.file import Chunk, Shown
from shopassist.ops.state.staging import SEARCH, Place, stage

FEW = 4
"""So many chunks are done before another process would have started."""

MOST_WORKERS = 4
UNSYNCED = "SET synchronous_commit = off"
"""What is not logged has nothing to wait for."""


async def staged_all(place: Place, chunks: Sequence[Chunk], size: int, shown: Shown) -> None:
    """Stage chunks of a file of so many bytes. Raises what asyncpg raises, and `OSError`."""
    left = sum(chunk.size for chunk in chunks)
    if len(chunks) <= FEW:
        connection = await _connected(place)
        try:
            for chunk in chunks:
                await stage(connection, place, chunk)
                left -= chunk.size
                shown(size - left, size)
        finally:
            await connection.close()
        return
    await asyncio.to_thread(_by_processes, place, chunks, size, shown)


def _by_processes(place: Place, chunks: Sequence[Chunk], size: int, shown: Shown) -> None:
    left = sum(chunk.size for chunk in chunks)
    workers = max(1, min(MOST_WORKERS, os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, get_context("spawn"), _begin, (place,)) as pool:
        futures = {pool.submit(_stage, chunk): chunk for chunk in chunks}
        try:
            for future in as_completed(futures):
                future.result()
                left -= futures[future].size
                shown(size - left, size)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


class _Worker:
    """What a worker process keeps."""

    place: Place
    loop: asyncio.AbstractEventLoop
    connection: asyncpg.Connection


def _begin(place: Place) -> None:
    die_with_parent()
    _Worker.place = place
    _Worker.loop = asyncio.new_event_loop()
    _Worker.connection = _Worker.loop.run_until_complete(_connected(place))


def _stage(chunk: Chunk) -> int:
    return _Worker.loop.run_until_complete(stage(_Worker.connection, _Worker.place, chunk))


async def _connected(place: Place) -> asyncpg.Connection:
    connection = await Servers(make_url(place.link)).connect(timeout=10)
    await connection.execute(PATIENT)
    await connection.execute(UNSYNCED)
    await ddl.run(connection, SEARCH, place.schema)
    return connection
