"""The state as a file: what is exported comes back, an import may be killed, and what is wrong is refused with a reason."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from containers import Container
from shopassist.command_line import app
from shopassist.models import UserConsentCreate
from shopassist.models.snapshot import KINDS
from tests.database_pool import DatabasePool
from tests.support import postgres_settings

NOON = "2026-03-01T12:00:00+00:00"
LATER = "2026-03-02T12:00:00+00:00"
Run = Callable[..., Result]


def snapshot(path: Path, *rows: dict[str, Any] | str, header: dict[str, Any] | None = None) -> Path:
    """A snapshot with these rows, as whoever leaves the old product writes it."""
    lines = [json.dumps({"shopassist_state": 1} | (header or {}))]
    lines += [row if isinstance(row, str) else json.dumps(row) for row in rows]
    text = "".join(f"{line}\n" for line in lines)
    end = {"end": {"rows": {"any": len(rows)}, "sha256": hashlib.sha256(text.encode()).hexdigest()}}
    path.write_text(text + json.dumps(end) + "\n")
    return path


def account(user_id: str, credits: int = 7, **others: Any) -> dict[str, Any]:
    """An account as the old product's dictionary had it."""
    row = {"kind": "user_credits", "user_id": user_id, "is_guest": False, "available_credits": credits}
    return {**row, "max_credits": 50, "last_reset_timestamp": NOON, **others}


def transaction(user_id: str, amount: int, **others: Any) -> dict[str, Any]:
    """A transaction as the old product's list had it."""
    row = {"kind": "credit_transactions", "user_id": user_id, "transaction_type": "allocate", "amount": amount}
    return {**row, "timestamp": NOON, **others}


def consent(user_id: str, **others: Any) -> dict[str, Any]:
    """A consent as the old product's dictionary had it."""
    return {"kind": "user_consents", "user_id": user_id, "timestamp": NOON, **others}


def event(user_id: str, **others: Any) -> dict[str, Any]:
    """A consent event."""
    row = {"kind": "consent_events", "user_id": user_id, "is_guest": False, "purpose": "terms", "granted": True}
    return {**row, "source": "record", "timestamp": NOON, **others}


def answer(query_hash: str, **others: Any) -> dict[str, Any]:
    """A stored answer."""
    row = {"kind": "query_cache", "query_hash": query_hash, "result": {"products": [], "price": 10999.10}}
    return {**row, "cached_at": NOON, "expires_at": LATER, **others}


OLD_PRODUCT = (
    account("auth0|1", 47),
    account("guest-2", 10, is_guest=True, max_credits=10),
    account("auth0|spent", 0),
    transaction("auth0|1", 50, description="Initial credits"),
    transaction("auth0|1", -3, transaction_type="deduct", timestamp=LATER),
    consent("auth0|1", marketing_consent=True),
    answer("aa"),
)


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on the database."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
async def other_url(database_pool: DatabasePool) -> Any:
    """A second database, migrated and empty."""
    url = await database_pool.take()
    yield url
    await database_pool.give_back(url)


async def rows_of(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


async def changed(url: str, statement: str) -> None:
    """Change something."""
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def ran(run: Run, *arguments: object) -> Result:
    """The outcome of a command, which has an event loop of its own."""
    return await asyncio.to_thread(run, *arguments)


def rejects_of(path: Path) -> dict[int, str]:
    """The reasons by line."""
    lines = path.with_name(f"{path.name}.rejects.jsonl").read_text().splitlines()
    return {row["line"]: row["reason"] for row in map(json.loads, lines)}


async def test_the_old_products_dump(database_url: str, run: Run, tmp_path: Path) -> None:
    """What it did not know comes from its rows: opening rows, balances, the history of consent, no instant of today."""
    file = snapshot(tmp_path / "old.jsonl", *OLD_PRODUCT)
    result = await ran(run, "state", "import", file)
    assert result.exit_code == 0, result.output
    ledger = "SELECT user_id, transaction_type, amount, balance_after FROM credit_transactions ORDER BY user_id, id"
    assert await rows_of(database_url, ledger) == [
        ("auth0|1", "allocate", 50, 50),
        ("auth0|1", "deduct", -3, 47),
        ("guest-2", "opening", 10, 10),
    ]
    events = "SELECT user_id, purpose, granted, source FROM consent_events ORDER BY id"
    assert await rows_of(database_url, events) == [
        ("auth0|1", "terms", True, "earlier_record"),
        ("auth0|1", "marketing", True, "earlier_record"),
    ]
    assert await rows_of(database_url, "SELECT max(created_at) < '2026-03-02' FROM user_credits") == [(True,)]
    assert await rows_of(database_url, "SELECT result ->> 'price' FROM query_cache") == [("10999.1",)]
    assert (await ran(run, "credits", "verify")).exit_code == 0
    assert (await ran(run, "state", "verify", file)).exit_code == 0
