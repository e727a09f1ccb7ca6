"""Guests who keep asking while servers are killed and promoted."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

SHOPPERS = 30


class Shoppers:
    """Guests who ask one question after another, each with its own key until it is answered."""

    def __init__(self, port: int, number: int = SHOPPERS) -> None:
        """Prepare `number` guests of the server at `port`."""
        self._number = number
        self.asked = Counter[str]()
        self.statuses = Counter[int]()
        self.seconds: list[tuple[float, float]] = []
        self.answered_at: list[float] = []
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self._enough = asyncio.Event()

    @asynccontextmanager
    async def shopping(self) -> AsyncIterator[None]:
        """Ask for the length of the block, then wait for all answers."""
        async with self._client, asyncio.TaskGroup() as group:
            for number in range(self._number):
                group.create_task(self._shop(number))
            try:
                yield
            finally:
                self._enough.set()

    async def _shop(self, number: int) -> None:
        turn = 0
        while not self._enough.is_set():
            guest = f"guest-{number}-{turn // 10}"  # a guest has ten credits
            key = {"X-Session-ID": guest, "Idempotency-Key": f"{number}-{turn}"}
            while not await self._answered({"query": f"phone {number} {turn}"}, key):
                await asyncio.sleep(0.1)
            self.asked[guest] += 1
            turn += 1
            await asyncio.sleep(0.1)

    async def _answered(self, question: dict[str, str], key: dict[str, str]) -> bool:
        began = time.monotonic()
        answer = await self._client.post("/api/query", json=question, headers=key)
        self.seconds.append((began, time.monotonic() - began))
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200 and answer.json()["metadata"]["charged"] == 1:
            self.answered_at.append(time.monotonic())
            return True
        return False

    def lost_and_doubled(self, spent: Mapping[str, int]) -> tuple[int, int]:
        """Return credits acknowledged but not taken, and taken without acknowledgement, by what each guest spent."""
        lost = sum(max(0, asked - spent.get(guest, 0)) for guest, asked in self.asked.items())
        return lost, sum(max(0, spent[guest] - self.asked[guest]) for guest in spent)
