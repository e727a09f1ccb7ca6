"""Concurrent callers in one process: of the product's services, and of equivalent plain statements."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import text

from benchmarks.database import build_settings
from benchmarks.workers import build_sample, run_worker
from containers import Container
from shopassist.asgi import freeze_garbage_collector
from shopassist.db.database import DatabaseManager
from shopassist.logging import configure_logging

WARM_UP_SECONDS = 0.4
DEBIT = text("""
WITH debit AS (
    UPDATE user_credits SET available_credits = available_credits - 1, updated_at = now()
    WHERE user_id = :user_id AND available_credits >= 1 RETURNING user_id, available_credits
)
INSERT INTO credit_transactions (user_id, transaction_type, amount, description, balance_after)
SELECT user_id, 'deduct', -1, 'Credit deducted for message', available_credits FROM debit
""")
STATUS = text("SELECT * FROM user_credits WHERE user_id = :user_id")
CACHED = text("SELECT result FROM query_cache WHERE query_hash = :user_id AND expires_at >= now()")
Operation = Callable[[str], Awaitable[object]]


def plain(manager: DatabaseManager, statement: Any) -> Operation:
    """Return a call that executes one statement in AUTOCOMMIT: one round trip, without the product."""
    engine = manager.engine.execution_options(isolation_level="AUTOCOMMIT")

    async def execute(user_id: str) -> object:
        async with engine.connect() as connection:
            result = await connection.execute(statement, {"user_id": user_id})
            return result.one() if result.returns_rows else None

    return execute


def operations(url: str) -> dict[str, Operation]:
    """Yield the operations by name, on the database at `url`."""
    container = Container(settings=build_settings(url))
    credits_, manager, cache = container.credit_service(), container.database_manager(), container.cached_answers()
    return {
        "debit": lambda user_id: credits_.deduct_credit(user_id, is_guest=True),
        "status": lambda user_id: credits_.get_credit_status(user_id, is_guest=True),
        "cached": cache.find,
        "plain debit": plain(manager, DEBIT),
        "plain status": plain(manager, STATUS),
        "plain cached": plain(manager, CACHED),
    }


databases: dict[str, dict[str, Operation]] = {}


async def call(database: str, operation: str, users: int, callers: int, seconds: float) -> dict[str, Any]:
    """Run this many callers, each one call after another, and measure after warming up."""
    if database not in databases:
        databases[database] = operations(os.environ[f"BENCH_{database.upper()}"])
        freeze_garbage_collector()
    work = databases[database][operation]
    names = [f"bench-{n:07}" for n in random.sample(range(users), min(users, 100_000))]
    return await measure_callers(work, names, callers, seconds)


async def measure_callers(work: Operation, names: Sequence[str], callers: int, seconds: float) -> dict[str, Any]:
    """Measure this many callers who iterate over the names, each one call after another."""
    latencies: list[float] = []
    stopping = False

    async def caller(turn: int) -> None:
        while not stopping:
            began = time.perf_counter()
            outcome = await work(names[turn % len(names)])
            latencies.append(time.perf_counter() - began)
            assert outcome is not False
            turn += callers

    tasks = [asyncio.create_task(caller(turn)) for turn in range(callers)]
    await asyncio.sleep(WARM_UP_SECONDS)
    latencies.clear()
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    cpu, ended, measured = time.process_time() - cpu, time.perf_counter(), latencies.copy()
    stopping = True
    await asyncio.gather(*tasks)
    return build_sample(began, ended, measured, cpu)


if __name__ == "__main__":
    configure_logging("warning")
    run_worker(call)
