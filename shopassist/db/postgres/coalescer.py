"""Many concurrent calls of one process, one statement: callers are gathered while the previous batch is under way."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from shopassist.errors import StorageUnavailableError

Request = TypeVar("Request")
Result = TypeVar("Result")

LARGEST_BATCH = 192
"""Measured: with 256 callers, what is left over is prepared and answered while this many are under way."""

LONGEST_QUEUE = 10_000
QUEUE_FULL = "Too many requests are waiting for the database right now; please try again shortly."


class Coalescer(Generic[Request, Result]):
    """Runs requests in batches, one batch at a time, in the order of their arrival.

    A caller who finds nothing under way goes at once and alone; whoever arrives meanwhile is the next batch. Everyone
    is answered when their batch is done. A caller who is cancelled leaves a request that is done all the same.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]],
        kind: Callable[[Request], tuple[Hashable, Hashable]] | None = None,
    ) -> None:
        """`run` answers each request of a batch, in its order, or says why not.

        `kind` gives a request's group and what the requests of one group must have in common to share a batch.
        """
        self._run = run
        self._kind = kind
        self._waiting: deque[tuple[Request, asyncio.Future[Result]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Result:
        """The answer to `request`. Raises what `run` raises, and `StorageUnavailableError` when too many wait."""
        if len(self._waiting) >= LONGEST_QUEUE:
            raise StorageUnavailableError(QUEUE_FULL)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._answer(self._next_batch())
        finally:
            self._worker = None

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Result]]]:
        batch: list[tuple[Request, asyncio.Future[Result]]] = []
        later: list[tuple[Request, asyncio.Future[Result]]] = []
        common: dict[Hashable, Hashable] = {}
        passed_over: set[Hashable] = set()
        while self._waiting and len(batch) < LARGEST_BATCH:
            entry = self._waiting.popleft()
            if self._kind is not None:
                group, trait = self._kind(entry[0])
                if group in passed_over or common.setdefault(group, trait) != trait:
                    passed_over.add(group)
                    later.append(entry)
                    continue
            batch.append(entry)
        self._waiting.extendleft(reversed(later))
        return batch

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([request for request, _ in batch])
        except StorageUnavailableError as error:
            for _, future in batch:
                refuse(future, error)
        except Exception as error:  # noqa: BLE001 - each caller is told their own
            if len(batch) == 1:
                refuse(batch[0][1], error)
                return
            # The statement changed nothing; alone, whoever is at fault fails alone.
            for entry in batch:
                await self._answer([entry])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if isinstance(result, Exception):
                    refuse(future, result)
                elif not future.done():
                    future.set_result(result)


def refuse(future: asyncio.Future[Result], error: Exception) -> None:
    """Give `error` to whoever still waits."""
    if not future.done():
        future.set_exception(error)
