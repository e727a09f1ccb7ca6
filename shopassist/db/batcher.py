"""Batches concurrent requests of one process into one statement."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from typing import Generic, TypeAlias, TypeVar

from shopassist.errors import StorageUnavailableError
from shopassist.tracing import copy_trace_context, span

Request = TypeVar("Request")
Result = TypeVar("Result")
QueuedRequest: TypeAlias = tuple[Request, asyncio.Future[Result], Context | None]

MAX_BATCH_SIZE = 256
SPLIT_THRESHOLD = 32
"""From this number on, requests that arrive together make two batches."""

MAX_CONCURRENT_BATCHES = 2
CONCURRENT_BATCH_THRESHOLD = 16
"""From this number on, waiting requests start a second, concurrent batch."""

SLOW_BATCH_SECONDS = 0.05
MAX_CONCURRENT_SLOW_BATCHES = 6
"""Concurrent batches when each is slow, as on a slow network."""

MAX_QUEUED_REQUESTS = 10_000
QUEUE_FULL_MESSAGE = "Too many requests are waiting for the database right now; please try again shortly."


class Batcher(Generic[Request, Result]):
    """Runs requests in batches, in order of arrival.

    The first request runs at once and alone; requests that arrive meanwhile form the next batch. It runs concurrently
    if it is large or the first one is slow. The request of a cancelled caller is still executed.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]],
        group_of: Callable[[Request], tuple[Hashable, Hashable]] | None = None,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`run` returns a result or an error for each request of a batch, in order. `on_batch` gets each batch's size.

        `group_of` returns a request's group and a trait: requests of a group share a batch only if their traits are
        equal. A group is in one batch at a time, so that its requests keep their order.
        """
        self._run = run
        self._group_of = group_of
        self._on_batch = on_batch
        self._waiting: deque[QueuedRequest[Request, Result]] = deque()
        self._running = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._in_progress: set[Hashable] = set()
        self._slow: asyncio.TimerHandle | None = None

    async def submit(self, request: Request) -> Result:
        """Return the result of `request`. Raises its error, and `StorageUnavailableError` when the queue is full."""
        if len(self._waiting) >= MAX_QUEUED_REQUESTS:
            raise StorageUnavailableError(QUEUE_FULL_MESSAGE)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with span("wait for a batch"):
            self._waiting.append((request, future, copy_trace_context()))
            self._schedule()
            return await future

    def _schedule(self) -> None:
        if not self._running or (
            self._running < MAX_CONCURRENT_BATCHES and len(self._waiting) >= CONCURRENT_BATCH_THRESHOLD
        ):
            self._start_worker()
        elif self._slow is None:
            self._slow = asyncio.get_running_loop().call_later(SLOW_BATCH_SECONDS, self._start_concurrent_worker)

    def _start_worker(self) -> None:
        self._running += 1
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def _start_concurrent_worker(self) -> None:
        self._slow = None
        if self._waiting and self._running < MAX_CONCURRENT_SLOW_BATCHES:
            self._start_worker()

    async def _work(self) -> None:
        # Callers that get their results together submit again together, so the database and this process would idle in
        # turn. With two halves, one is in progress while the results of the other are delivered.
        waiting = len(self._waiting)
        size = (waiting + 1) // 2 if waiting >= SPLIT_THRESHOLD else MAX_BATCH_SIZE
        try:
            while self._waiting:
                batch, groups = self._take_batch(min(size, MAX_BATCH_SIZE))
                if not batch:
                    return  # the workers of their groups will take them
                self._on_batch(len(batch))
                try:
                    # Traces show a batch as part of its first request.
                    if (context := batch[0][2]) is None:
                        await self._answer(batch)
                    else:
                        await asyncio.create_task(self._answer(batch), context=context)
                finally:
                    self._in_progress -= groups
                size = MAX_BATCH_SIZE
        finally:
            self._running -= 1

    def _take_batch(self, size: int) -> tuple[list[QueuedRequest[Request, Result]], set[Hashable]]:
        """Take the next requests from the queue and mark their groups as in progress."""
        batch: list[QueuedRequest[Request, Result]] = []
        later: list[QueuedRequest[Request, Result]] = []
        traits: dict[Hashable, Hashable] = {}
        skipped: set[Hashable] = set()
        while self._waiting and len(batch) < size:
            entry = self._waiting.popleft()
            if self._group_of is not None:
                group, trait = self._group_of(entry[0])
                if group in skipped or group in self._in_progress or (group in traits and traits[group] != trait):
                    skipped.add(group)
                    later.append(entry)
                    continue
                traits[group] = trait
            batch.append(entry)
        self._waiting.extendleft(reversed(later))
        groups = set(traits)
        self._in_progress |= groups
        return batch, groups

    async def _answer(self, batch: list[QueuedRequest[Request, Result]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._run([request for request, _, _ in batch])
        except Exception as error:  # noqa: BLE001 - each caller is told their own
            if len(batch) > 1 and not isinstance(error, StorageUnavailableError):
                # The statement changed nothing. Run one by one, only the faulty request fails.
                for entry in batch:
                    await self._answer([entry])
                return
            results = [error] * len(batch)
        for (_, future, _), result in zip(batch, results, strict=True):
            if future.done():
                continue  # its caller was cancelled
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
