"""SIGKILL of the server before and after settlement, without a reply: no credit is lost or taken twice.

Each round asks four questions, kills the server while it works on two and was paid for two, and restarts it. Shoppers
without an answer ask again, with the same key or without one, until they have one. `KILL_ROUNDS` is the number of
rounds
(`make test-kill`: 100).
"""

import asyncio
import http.client
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from tests.support.servers import TestServer, mark

ROUNDS = int(os.environ.get("KILL_ROUNDS", "5"))
SECONDS_PER_ROUND = 7
LAST_ANSWERS_SECONDS = 40
LONGEST_SECONDS = 12 * 60
HOLDS = {"CREDIT_HOLD_TTL_SECONDS": "2", "QUERY_TIMEOUT_SECONDS": "1.9"}


@dataclass(slots=True)
class Shopper:
    """A guest with one question who asks until it is answered."""

    name: str
    query: str
    key: str | None
    statuses: list[int] = field(default_factory=list)
    replayed: bool = False

    @property
    def answered(self) -> bool:
        """Return whether there was an answer with products."""
        return self.statuses[-1:] == [200]

    def ask(self, server: TestServer) -> None:
        """Ask, and repeat while the key is in flight, until an answer or the server's end."""
        while not self.answered:
            try:
                status, body, headers = server.ask(self.query, self.name, self.key)
            except (OSError, http.client.HTTPException, ValueError):
                return
            self.statuses.append(status)
            assert status in {200, 409}, (status, body)
            if status == 200:
                assert body["products"], body
                self.replayed = "idempotent-replayed" in headers
            else:
                time.sleep(0.2)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Create the folder where servers leave their marker files."""
    folder = Path(tempfile.mkdtemp(prefix="shopassist-kill-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.timeout(min(LONGEST_SECONDS, 60 + SECONDS_PER_ROUND * ROUNDS + LAST_ANSWERS_SECONDS))
async def test_killed_at_the_worst_moments_nothing_is_lost_or_doubled(folder: Path, database_url: str) -> None:
    """Every question is answered in the end, for exactly one credit; a paid question is not paid again."""
    shoppers: list[Shopper] = []
    threads: list[threading.Thread] = []
    for number in range(ROUNDS):
        server = await asyncio.to_thread(TestServer(folder, database_url, **HOLDS).wait_until_ready)
        try:
            new = [
                Shopper(f"{kind}-{key or 'none'}-{number}", f"{kind} phone {number} {key}", key)
                for kind in ("hang", "late")
                for key in (None, f"key-{number}")
            ]
            shoppers += new
            threads += ask_all(shoppers, server)
            await until_all_hang(folder, new)
            held = await rows_of(database_url, "SELECT user_id FROM credit_holds")
            assert {row["user_id"] for row in held} >= {shopper.name for shopper in new if "hang" in shopper.query}
        finally:
            server.kill()
        for thread in threads:
            thread.join()
    server = await asyncio.to_thread(TestServer(folder, database_url, **HOLDS).wait_until_ready)
    try:
        deadline = time.monotonic() + LAST_ANSWERS_SECONDS
        for thread in ask_all(shoppers, server):
            await asyncio.to_thread(thread.join, max(0, deadline - time.monotonic()))
        assert [shopper for shopper in shoppers if not shopper.answered] == []
        async with asyncio.timeout(LAST_ANSWERS_SECONDS):
            while await rows_of(database_url, "SELECT hold_id FROM credit_holds"):
                await asyncio.sleep(0.2)
    finally:
        server.kill()
    await check_books(database_url, shoppers)
    asked = Counter((folder / "asked").read_text().splitlines())
    for shopper in shoppers:
        if shopper.query.startswith("late"):
            assert (asked[shopper.query], shopper.replayed) == (1, shopper.key is not None), shopper
        else:  # killed before it was paid for: answered again
            assert asked[shopper.query] >= 2, shopper


def ask_all(shoppers: list[Shopper], server: TestServer) -> list[threading.Thread]:
    """Let every shopper without an answer ask."""
    threads = [threading.Thread(target=shopper.ask, args=[server]) for shopper in shoppers if not shopper.answered]
    for thread in threads:
        thread.start()
    return threads


async def until_all_hang(folder: Path, shoppers: list[Shopper]) -> None:
    """Wait until the assistant works on two of their questions and two were paid for."""
    async with asyncio.timeout(20):
        while not all(mark(folder, shopper.query).exists() for shopper in shoppers):
            await asyncio.sleep(0.01)


async def check_books(url: str, shoppers: list[Shopper]) -> None:
    """Check that each account has 10 credits allocated, one spent, nine left, none held, and right running balances."""
    rows = await rows_of(
        url,
        """
        SELECT user_id, available_credits, held_credits,
               (SELECT array_agg(amount ORDER BY id) FROM credit_transactions t WHERE t.user_id = u.user_id) AS amounts,
               (SELECT array_agg(balance_after ORDER BY id) FROM credit_transactions t WHERE t.user_id = u.user_id)
                   AS balances
        FROM user_credits u
        """,
    )
    found = {row["user_id"]: tuple(row)[1:] for row in rows}
    assert found == {shopper.name: (9, 0, [10, -1], [10, 9]) for shopper in shoppers}


async def rows_of(url: str, statement: str) -> list[asyncpg.Record]:
    """Return the rows of a statement."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()
