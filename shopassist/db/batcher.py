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
"""Requests that make two batches when they come all at once."""

MAX_CONCURRENT_BATCHES = 2
CONCURRENT_BATCH_THRESHOLD = 16
"""Requests that do not wait for the batch under way, but go beside it."""

SLOW_BATCH_SECONDS = 0.05
MAX_CONCURRENT_SLOW_BATCHES = 6
"""Batches at once where each takes long, as on a slow network: waiting for one another would add up."""

MAX_QUEUED_REQUESTS = 10_000
QUEUE_FULL_MESSAGE = "Too many requests are waiting for the database right now; please try again shortly."


class Batcher(Generic[Request, Result]):
    """Runs requests in batches, in the order of their arrival.

    A caller who finds nothing under way goes at once and alone; whoever arrives meanwhile is the next batch, and when
    many do, or the first takes long, it goes beside it. Everyone is answered when their batch is done. A caller who is
    cancelled leaves a request that is done all the same.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]],
        kind: Callable[[Request], tuple[Hashable, Hashable]] | None = None,
        took: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`run` answers each request of a batch, in its order, or says why not.

        `kind` gives a request's group and what the requests of one group must have in common to share a batch. A group
        is in one batch at a time, so that its requests keep their order. `took` is told the size of each batch.
        """
        self._run = run
        self._kind = kind
        self._took = took
        self._waiting: deque[QueuedRequest[Request, Result]] = deque()
        self._at_work = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._under_way: set[Hashable] = set()
        self._slow: asyncio.TimerHandle | None = None

    async def submit(self, request: Request) -> Result:
        """The answer to `request`. Raises what `run` raises, and `StorageUnavailableError` when too many wait."""
        if len(self._waiting) >= MAX_QUEUED_REQUESTS:
            raise StorageUnavailableError(QUEUE_FULL_MESSAGE)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        with span("wait for a batch"):
            self._waiting.append((request, future, copy_trace_context()))
            self._see_to_it()
            return await future

    def _see_to_it(self) -> None:
        if not self._at_work or (
            self._at_work < MAX_CONCURRENT_BATCHES and len(self._waiting) >= CONCURRENT_BATCH_THRESHOLD
        ):
            self._begin()
        elif self._slow is None:
            self._slow = asyncio.get_running_loop().call_later(SLOW_BATCH_SECONDS, self._begin_beside)

    def _begin(self) -> None:
        self._at_work += 1
        worker = asyncio.create_task(self._work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def _begin_beside(self) -> None:
        self._slow = None
        if self._waiting and self._at_work < MAX_CONCURRENT_SLOW_BATCHES:
            self._begin()

    async def _work(self) -> None:
        # Many callers who are answered at once ask again at once, and the database and this process would take turns at
        # resting. Halved, one half is under way while the other is answered.
        together = len(self._waiting)
        largest = (together + 1) // 2 if together >= SPLIT_THRESHOLD else MAX_BATCH_SIZE
        try:
            while self._waiting:
                batch, groups = self._next_batch(min(largest, MAX_BATCH_SIZE))
                if not batch:
                    return  # whoever has their groups under way comes for them
                self._took(len(batch))
                try:
                    # In a trace a batch is seen as part of the request that was first in it.
                    if (context := batch[0][2]) is None:
                        await self._answer(batch)
                    else:
                        await asyncio.create_task(self._answer(batch), context=context)
                finally:
                    self._under_way -= groups
                largest = MAX_BATCH_SIZE
        finally:
            self._at_work -= 1

    def _next_batch(self, largest: int) -> tuple[list[QueuedRequest[Request, Result]], set[Hashable]]:
        """The next requests, and their groups, which are then under way."""
        batch: list[QueuedRequest[Request, Result]] = []
        later: list[QueuedRequest[Request, Result]] = []
        common: dict[Hashable, Hashable] = {}
        passed_over: set[Hashable] = set()
        while self._waiting and len(batch) < largest:
            entry = self._waiting.popleft()
            if self._kind is not None:
                group, trait = self._kind(entry[0])
                if group in passed_over or group in self._under_way or (group in common and common[group] != trait):
                    passed_over.add(group)
                    later.append(entry)
                    continue
                common[group] = trait
            batch.append(entry)
        self._waiting.extendleft(reversed(later))
        groups = set(common)
        self._under_way |= groups
        return batch, groups

    async def _answer(self, batch: list[QueuedRequest[Request, Result]]) -> None:
        try:
            results = await self._run([request for request, _, _ in batch])
        except StorageUnavailableError as error:
            for _, future, _ in batch:
                set_error(future, error)
        except Exception as error:  # noqa: BLE001 - each caller is told their own
            if len(batch) == 1:
                set_error(batch[0][1], error)
                return
            # The statement changed nothing; alone, whoever is at fault fails alone.
            for entry in batch:
                await self._answer([entry])
        else:
            for (_, future, _), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    set_error(future, result)
                elif not future.done():
                    future.set_result(result)


def set_error(future: asyncio.Future[Result], error: Exception) -> None:
    """Give `error` to whoever still waits."""
    if not future.done():
        future.set_exception(error)
