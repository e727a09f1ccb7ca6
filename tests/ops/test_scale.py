"""The compose profile `scale`: two apps behind nginx; one app and then the primary are killed."""

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest

from containers import Container
from tests.support.compose import services
from tests.support.helpers import postgres_settings
from tests.support.scale import Scale, provision, run_scale
from tests.support.servers import TestServer
from tests.support.shoppers import Shoppers

pytestmark = [pytest.mark.external, pytest.mark.timeout(240)]

Tell = Callable[..., None]
SHOPPERS = 12
RECOVERY_SECONDS = 10
HOLDS = {"CREDIT_HOLD_TTL_SECONDS": "3", "QUERY_TIMEOUT_SECONDS": "2.5"}
MANY_GUESTS = {"GUEST_ACCOUNTS_PER_NETWORK_PER_DAY": "1000000"}


@pytest.fixture
def scale() -> Iterator[Scale]:
    """Run the whole profile in the order of compose.yaml, with a synchronous standby."""
    with run_scale() as scale:
        scale.initialise()
        provision(scale)
        scale.run("replication")
        scale.start("standby")
        scale.run("synchronous")
        scale.start("pgbouncer")
        scale.start("redis")
        apps = [scale.start_app(name, **HOLDS, **MANY_GUESTS) for name in ("app-1", "app-2")]
        for app in apps:
            app.wait_until_ready(90)
        scale.start("nginx")
        yield scale


def asked(
    scale: Scale, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Return status, JSON and headers of a response of nginx."""
    connection = http.client.HTTPConnection("127.0.0.1", scale.ports["nginx"], timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": "application/json", **named})
    answer = connection.getresponse()
    told = json.loads(answer.read() or b"null"), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return answer.status, *told


async def test_an_app_is_killed_and_the_primary_is_replaced(scale: Scale, tell: Tell) -> None:
    """Requests fail only briefly; no acknowledged charge is lost or made twice."""
    look_at_the_door(scale)
    shoppers = Shoppers(scale.ports["nginx"], SHOPPERS)
    async with shoppers.shopping():
        await asyncio.sleep(3)
        refused = shoppers.asked.total(), shoppers.statuses[503]
        scale.apps["app-1"].kill()
        killed_at = time.monotonic()
        await asyncio.sleep(3)
        without_app = shoppers.statuses[503] - refused[1]
        assert shoppers.answered_at[-1] > killed_at + 2
        await asyncio.to_thread(scale.kill, "database")
        killed_at = time.monotonic()
        await asyncio.to_thread(fail_over, scale)
        promoted_at = time.monotonic()
        async with asyncio.timeout(60):
            while shoppers.answered_at[-1] < promoted_at:
                await asyncio.sleep(0.02)
        await asyncio.sleep(3)
        rejoined_at = time.monotonic()
        await asyncio.to_thread(rejoin, scale)
        rejoined = time.monotonic() - rejoined_at
        await asyncio.sleep(1)
    await asyncio.to_thread(without_standby, scale)
    assert scale.started == set(services("scale")) | {"database"}
    back = min(at for at in shoppers.answered_at if at > promoted_at) - killed_at
    lost, doubled, drifting = await books(scale, shoppers)
    tell(
        "scale",
        questions=shoppers.asked.total(),
        refused_when_an_app_was_killed=without_app,
        refused_at_all=shoppers.statuses[503],
        back_after_the_primary_was_killed_s=round(back, 2),
        rejoined_s=round(rejoined, 2),
        lost=lost,
        doubled=doubled,
        drifting_accounts=drifting,
    )
    assert set(shoppers.statuses) <= {200, 409, 503}
    assert (lost, doubled, drifting) == (0, 0, 0)
    assert without_app <= SHOPPERS
    assert back < RECOVERY_SECONDS


def look_at_the_door(scale: Scale) -> None:
    """Check which requests nginx forwards, and the client address that it adds."""
    ready = asked(scale, "GET", "/health/ready", X_Request_ID="mine-1")
    assert (ready[0], ready[2]["x-request-id"]) == (200, "mine-1")
    assert len(asked(scale, "GET", "/health", X_Request_ID="not mine")[2]["x-request-id"]) == 32
    assert asked(scale, "GET", "/metrics")[0] == 404
    assert asked(scale, "POST", "/api/query", b"x" * 70_000)[:2] == (
        413,
        {"detail": "The body of a request may have 64 KB at the most.", "error_type": "body_too_large"},
    )
    for number, made_up in enumerate(("", "203.0.113.1", "203.0.113.2")):
        told = {"X_Forwarded_For": made_up, "Forwarded": f"for={made_up}"} if made_up else {}
        question = json.dumps({"query": f"a {number}"}).encode()
        status, body, _ = asked(scale, "POST", "/api/query", question, X_Session_ID=f"a{number}", **told)
        assert (status, body["metadata"]["charged"]) == (200, 1), body
    assert scale.sql("database", "SELECT count(DISTINCT network) FROM guest_networks") == "1"
    for app in scale.apps.values():
        deadline = time.monotonic() + 10
        while shared_parts(app) != ("closed", "fit"):
            assert time.monotonic() < deadline, shared_parts(app)
            time.sleep(0.1)


def shared_parts(app: TestServer) -> tuple[str, str]:
    """Return an app's circuit breaker state for Redis and its replica state."""
    parts = app.call("GET", "/health/detailed")[1]["components"]
    return parts["shared_cache"]["status"], parts["replica"]["status"]


def fail_over(scale: Scale) -> None:
    """Promote the standby as docs/scaling.md describes."""
    assert scale.sql("standby", "SELECT pg_promote()") == "t"
    primary = scale.place("pgbouncer") / "pgbouncer" / "primary.ini"
    primary.write_text(f"shopassist = host=127.0.0.1 port={scale.ports['standby']} dbname=shopassist\n")
    scale.processes["pgbouncer"].send_signal(1)


def rejoin(scale: Scale) -> None:
    """Rejoin the old primary as docs/scaling.md describes: a fresh copy that follows the new primary."""
    scale.run("database", "sh", "-c", 'rm -r "$PGDATA"')
    copy = ("sh", f"{scale.place('database')}/shopassist/start-standby.sh")
    scale.run("database", *copy, PRIMARY=f"host=127.0.0.1 port={scale.ports['standby']}", STANDBY="database")
    scale.start("database")
    scale.run("synchronous")
    assert scale.sql("standby", "SELECT application_name, sync_state FROM pg_stat_replication") == "database|quorum"


def without_standby(scale: Scale) -> None:
    """Without the only standby no charge commits, until an operator disables waiting for it.

    What compose starts ahead of a standby waits for none.
    """
    scale.kill("database")
    scale.run("replication")
    question = json.dumps({"query": "a question of its own"}).encode()
    assert asked(scale, "POST", "/api/query", question, X_Session_ID="alone")[0] == 503
    assert asked(scale, "GET", "/health/ready")[0] == 200
    scale.sql("standby", "ALTER SYSTEM RESET synchronous_standby_names")
    scale.sql("standby", "SELECT pg_reload_conf()")
    deadline = time.monotonic() + 10
    while asked(scale, "POST", "/api/query", question, X_Session_ID="alone")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def books(scale: Scale, shoppers: Shoppers) -> tuple[int, int, int]:
    """Count lost credits, double charges and accounts with wrong sums, after all holds ended."""
    connection = await asyncpg.connect(scale.link("standby"))
    async with asyncio.timeout(30):
        while await connection.fetchval("SELECT count(*) FROM credit_holds"):
            await asyncio.sleep(0.1)
    spent = dict(
        await connection.fetch("SELECT user_id, 10 - available_credits FROM user_credits WHERE user_id LIKE 'guest-%'")
    )
    await connection.close()
    container = Container(settings=postgres_settings(scale.link("standby")))
    report = await container.ledger_reconciliation().verify()
    await container.shutdown()
    assert report is not None
    return *shoppers.lost_and_doubled(spent), report.drifting_accounts
