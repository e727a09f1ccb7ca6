"""A rollout under 100 requests a second (or `FAULT_RATE`) with changing percentages and PostgreSQL killed."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shopassist.rollout.models import RolloutStatus
from tests.support import load
from tests.support.databases import PostgresServer
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.ledger_check import audit_database
from tests.support.load import Heard, Kind, Load
from tests.support.servers import PROJECT, TestServer
from tests.support.trial import HOLDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RATE = min(100, load.RATE)
SECONDS = 2.0
"""Time between two changes of the percentage."""

PERCENTAGES = (10, 50, 100, 40, 0, 70, 100, 5, 100)


class Shop:
    """A server with a rollout, and the operator's command line."""

    def __init__(self, folder: Path, url: str, identity: IdentityProvider) -> None:
        """Start the server with all users in memory."""
        self._identity = identity
        believed = {"AUTH0_ISSUER": identity.issuer, "AUTH0_API_AUDIENCE": AUDIENCE}
        self.server = TestServer(
            folder, url, STORAGE="rollout", ROLLOUT_SHADOW="true", CONSENT_REQUIRED="false", **HOLDS, **believed
        )
        self.load = Load(self.server.port, self.token, RATE)

    def token(self, subject: str, **claims: Any) -> str:
        """Return an access token."""
        return self._identity.token(subject, self._identity.curve_key, {"kid": "k2"}, "ES256", **claims)

    async def rollout(self, *arguments: str) -> tuple[int, str]:
        """Run `shopassist rollout …` and return its exit code and output."""
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(PROJECT),
            "SHOPASSIST_URL": f"http://127.0.0.1:{self.server.port}",
            "ADMIN_TOKEN": self.token("auth0|admin", scope="shopassist:admin"),
        }
        command = [sys.executable, "-m", "shopassist", "rollout", *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr

    async def status(self) -> RolloutStatus:
        """Return the status that the server gives."""
        headers = {"Authorization": f"Bearer {self.token('auth0|admin', scope='shopassist:admin')}"}
        _, body, _ = await asyncio.to_thread(self.server.call, "GET", "/api/admin/rollout", None, headers)
        return RolloutStatus.model_validate(body)

    async def wait_until_migrated(self) -> RolloutStatus:
        """Wait until all users are in their assigned storage and return the status."""
        async with asyncio.timeout(30):
            while (status := await self.status()).to_move:
                await asyncio.sleep(0.1)
        return status


@pytest.fixture
def shop(database: str, identity: IdentityProvider, tmp_path: Path) -> Iterator[Shop]:
    """Yield a running server."""
    shop = Shop(tmp_path, database, identity)
    shop.server.wait_until_ready()
    yield shop
    shop.server.kill()


async def test_changing_the_percentage_under_load(shop: Shop, database: str, tell: Any) -> None:
    """No request is refused, no acknowledged write is lost or duplicated, and no comparison differs."""
    await shop.load.know()
    async with shop.load.running():
        for percent in PERCENTAGES:
            code, said = await shop.rollout("set", str(percent))
            assert code == 0, said
            await asyncio.sleep(SECONDS)
    heard = list(shop.load.heard)
    assert [one for one in heard if one.failed] == []
    await ask_again(shop, heard)
    assert (await shop.rollout("set", "100"))[0] == 0
    status = await shop.wait_until_migrated()
    await shop.load.hang_up()
    code, said = await shop.rollout("status")
    assert (code, status.unmirrored, status.differences) == (0, [], {}), said
    books = await audit_database(database, shop.load.heard, with_answers=False)
    assert (books.lost, books.doubled, books.drifting_accounts) == ([], [], 0)
    tell(
        f"percentages {', '.join(map(str, PERCENTAGES))} at {RATE} requests/s",
        requests=len(heard),
        users_moved=status.memory.moved_here + status.postgres.moved_here,
        compared=status.compared,
        differences=sum(status.differences.values()),
        unanswered_by_the_other_side=status.shadow_failures,
        p99_milliseconds=1000 * sorted(one.seconds for one in heard)[len(heard) * 99 // 100],
        lost=0,
        doubled=0,
    )


async def test_back_under_load_with_the_database_gone(
    shop: Shop, database: str, postgres_server: PostgresServer, tell: Any
) -> None:
    """PostgreSQL is killed at 50 %: `back` ends all refusals, and only listed users may lack a change."""
    await shop.load.know()
    async with shop.load.running():
        assert (await shop.rollout("set", "50"))[0] == 0
        await asyncio.sleep(2 * SECONDS)
        postgres_server.kill()
        await asyncio.sleep(SECONDS)
        said_at = datetime.now(UTC)
        code, said = await shop.rollout("back")
        took = (datetime.now(UTC) - said_at).total_seconds()
        back_at = asyncio.get_running_loop().time()
        await asyncio.sleep(SECONDS)
    after = [one for one in shop.load.heard if one.began > back_at]
    assert len(after) > RATE
    assert [one for one in after if one.failed] == []
    status = await shop.status()
    assert "everybody was sent back" in said
    assert (status.postgres.users, status.percent) == (0, 0)
    listed = {one.user_id for one in status.unmirrored}
    assert code == bool(listed)
    paid = [one for one in shop.load.heard if one.kind is Kind.NEW and one.charged]
    for one in paid:
        assert await get_credits(shop, one) == 9 or one.who in listed

    postgres_server.start()
    assert (await shop.rollout("set", "100"))[0] == 0
    status = await shop.wait_until_migrated()
    await shop.load.hang_up()
    books = await audit_database(database, after, with_answers=False)
    assert (set(books.lost) - listed, books.drifting_accounts, status.unmirrored) == (set(), 0, [])
    tell(
        "PostgreSQL killed at 50 %, then back",
        requests=len(shop.load.heard),
        refused_meanwhile=sum(one.failed for one in shop.load.heard),
        back_seconds=took,
        listed=len(listed),
        refused_afterwards=0,
    )


async def get_credits(shop: Shop, one: Heard) -> int:
    """Return the available credits of the user of a request."""
    _, body, _ = await asyncio.to_thread(shop.server.call, "GET", "/api/user/credits", None, {"X-Session-ID": one.who})
    return int(body["available_credits"])


async def ask_again(shop: Shop, heard: list[Heard]) -> None:
    """Check that users get a paid answer again for free, in either storage."""
    for one in [one for one in heard if one.kind is Kind.NEW and one.charged][::10]:
        again = await shop.load.again(one.number)
        assert (again.status, again.body["metadata"]["charged"], again.body["cached"]) == (200, 0, True)
