"""Guests: inventing ids is no source of credits, and signed sessions cannot be made up."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI

from containers import Container
from shopassist.app import create_app
from shopassist.settings import GuestSettings, LimitSettings, ServerSettings, Settings
from tests.support.access_matrix import TABLE, Who, list_routes
from tests.support.helpers import FixedClock

STATUS = "/api/user/credits"
At = Callable[..., httpx.AsyncClient]
Bearer = Callable[..., dict[str, str]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Rate limits are out of the way, a proxy is trusted, and a network may have 50 new guests."""
    limits = LimitSettings(questions_per_minute=10**6, reads_per_minute=10**6)
    server = ServerSettings.model_validate({"TRUSTED_PROXIES": "10.0.0.0/8"})
    guests = GuestSettings(accounts_per_network=50)
    return settings.model_copy(update={"limits": limits, "server": server, "guests": guests})


@pytest.fixture
async def at(app: FastAPI) -> AsyncIterator[At]:
    """Clients of the app, by the address they come from."""
    opened: dict[tuple[str, int], httpx.AsyncClient] = {}

    def client(address: str, served: FastAPI = app) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(served, raise_app_exceptions=False, client=(address, 1234))
        new = httpx.AsyncClient(transport=transport, base_url="http://test")
        return opened.setdefault((address, id(served)), new)

    yield client
    for one in opened.values():
        await one.aclose()


def session(name: object) -> dict[str, str]:
    """Return the header of a guest."""
    return {"X-Session-ID": f"invented-{name}"}


def has_credits(answer: httpx.Response) -> bool:
    """Return whether a status, which is never refused, shows the credits of a new guest."""
    assert answer.status_code == 200
    return bool(answer.json()["available_credits"])


async def test_a_thousand_invented_guests_of_one_network(at: At, container: Container) -> None:
    """50 get credits and 950 are told to log in, also when they come by twenties; others lose nothing by it."""
    client = at("203.0.113.7")
    answers = []
    for begin in range(0, 1000, 20):
        answers += await asyncio.gather(
            *(client.get(STATUS, headers=session(number)) for number in range(begin, begin + 20))
        )
    welcome = [number for number, answer in enumerate(answers) if has_credits(answer)]
    missing = [number for number in range(1000) if number not in welcome]
    assert len(welcome) == 50
    refused = await client.post("/api/query", headers=session(missing[0]), json={"query": "phone"})
    assert (refused.status_code, refused.json()["error_type"]) == (429, "guest_limit_reached")
    assert "log in" in refused.json()["detail"]
    assert refused.headers["Retry-After"] == str(12 * 3600)  # midnight
    assert {(await client.get(STATUS, headers=session(number))).status_code for number in welcome} == {200}
    assert (await at("203.0.113.8").get(STATUS, headers=session("neighbour"))).status_code == 200
    moved = await at("203.0.113.9").get(STATUS, headers=session(welcome[0]))
    assert moved.json()["available_credits"] == 10
    async with container.unit_of_work()() as work:
        assert await work.credits.get_user_credits(f"invented-{missing[0]}") is None


async def test_every_way_of_coming_counts(at: At) -> None:
    """Questions, cached or not, histories and sessions of this server: all guests of a network count as one number."""
    client = at("203.0.113.7")
    for number in range(47):
        assert (await client.get(STATUS, headers=session(number))).status_code == 200
    asked = await client.post("/api/query", headers=session("asks"), json={"query": "phone"})
    history = await client.get(f"{STATUS}/transactions", headers=session("looks"))
    signed = await client.post("/api/guest")
    assert {asked.status_code, history.status_code, signed.status_code} == {200}
    for answer in (
        await client.post("/api/query", headers=session("new-1"), json={"query": "phone"}),
        await client.post("/api/query", headers=session("new-2"), json={"query": "another phone"}),
        await client.post("/api/guest"),
    ):
        assert (answer.status_code, answer.json()["error_type"]) == (429, "guest_limit_reached")
    again = await client.post("/api/query", headers=session("asks"), json={"query": "another phone"})
    assert again.json()["metadata"]["charged"] == 1


async def test_registered_users_are_not_counted(at: At, bearer: Bearer) -> None:
    """Users of a network that has reached its limit of guests can still log in."""
    client = at("203.0.113.7")
    for number in range(51):
        last = await client.get(STATUS, headers=session(number))
    assert not has_credits(last)
    users = [await client.get(STATUS, headers=bearer(f"auth0|{number}")) for number in range(3)]
    assert [answer.status_code for answer in users] == [200] * 3


async def test_a_new_day_begins_anew(at: At, clock: FixedClock, container: Container) -> None:
    """At midnight UTC; what was counted before yesterday is forgotten."""
    client = at("203.0.113.7")
    for number in range(50):
        await client.get(STATUS, headers=session(number))
    clock.move(hours=11, minutes=59)
    assert not has_credits(await client.get(STATUS, headers=session("late")))
    refused = await client.post("/api/guest")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    clock.move(minutes=1)
    assert has_credits(await client.get(STATUS, headers=session("late")))
    assert await container.credit_ledger().delete_old_guest_counts() == 0
    clock.move(days=1)
    assert await container.credit_ledger().delete_old_guest_counts() == 1
    clock.move(days=1)
    assert await container.credit_ledger().delete_old_guest_counts() == 1


async def test_a_proxy_that_is_trusted_says_who_comes(at: At) -> None:
    """Its clients are counted each for themselves, and what they claim to its left is not believed."""
    proxy = at("10.0.0.1")
    for number in range(51):
        forged = {"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.7"}
        last = await proxy.get(STATUS, headers={**session(number), **forged})
    assert not has_credits(last)
    assert has_credits(await proxy.get(STATUS, headers={**session("other"), "X-Forwarded-For": "203.0.113.8"}))


async def test_an_ipv6_network_counts_as_one(at: At) -> None:
    """A /64 has as many addresses as anybody likes."""
    for number in range(51):
        last = await at(f"2001:db8::{number:x}").get(STATUS, headers=session(number))
    assert not has_credits(last)


async def test_loopback_is_exempt_outside_production(at: At) -> None:
    """Who develops on this machine is not held up."""
    for number in range(60):
        last = await at("127.0.0.1").get(STATUS, headers=session(number))
    assert has_credits(last)


async def test_many_requests_of_one_new_guest_count_once(at: At) -> None:
    """A page that asks for its credits 20 times while it loads is one guest."""
    client = at("203.0.113.7")
    for number in range(50):
        answers = await asyncio.gather(*(client.get(STATUS, headers=session(number)) for _ in range(5)))
        assert all(map(has_credits, answers))
    assert not has_credits(await client.get(STATUS, headers=session("more")))


async def test_the_limit_blocks_no_read(at: At, app: FastAPI, container: Container) -> None:
    """Every GET route of guests answers a new guest of a network at its limit, who has no credits and no account."""
    client, new = at("203.0.113.7"), session("new")
    for number in range(50):
        await client.get(STATUS, headers=session(number))
    paths = [path for method, path in list_routes(app) if (method, path) in TABLE and method == "GET"]
    read = {path: await client.get(path, headers=new) for path in paths if TABLE["GET", path].who is Who.CALLERS}
    assert {path: answer.status_code for path, answer in read.items()} == dict.fromkeys(read, 200)
    assert len(read) >= 7
    assert read["/api/user/credits"].json() == {
        "user_id": "invented-new",
        "is_guest": True,
        "available_credits": 0,
        "max_credits": 10,
        "can_reset": False,
        "next_reset_time": None,
    }
    assert read["/api/user/credits/transactions"].json() == []
    async with container.unit_of_work()() as work:
        assert await work.credits.get_user_credits("invented-new") is None


async def test_a_signed_session_is_a_guest_of_its_own(at: At) -> None:
    """It comes with credits, which are spent as any guest's, and its id in answers is not its secret."""
    client = at("203.0.113.7")
    begun = (await client.post("/api/guest")).json()
    assert set(begun) == {
        *("session_id", "user_id", "available_credits", "max_credits", "is_guest", "can_reset", "next_reset_time")
    }
    assert (begun["available_credits"], begun["is_guest"]) == (10, True)
    headers = {"X-Session-ID": begun["session_id"]}
    answer = (await client.post("/api/query", headers=headers, json={"query": "phone"})).json()
    assert (answer["metadata"]["user_id"], answer["metadata"]["available_credits"]) == (begun["user_id"], 9)
    assert begun["session_id"].startswith(begun["user_id"])
    assert begun["session_id"] not in (await client.get(STATUS, headers=headers)).text


async def test_forged_and_tampered_sessions_are_refused(at: At) -> None:
    """401: nothing is created, and the guest of the session keeps all credits."""
    client = at("203.0.113.7")
    begun = (await client.post("/api/guest")).json()
    real = begun["session_id"]
    forged = [
        begun["user_id"],
        real[:-1],
        f"{real}A",
        f"gs1.{real[4:].swapcase()}",
        "gs1.AAAA.BBBB",
        "gs1.",
        f"gs1.{real}",
    ]
    for session_id in forged:
        answer = await client.get(STATUS, headers={"X-Session-ID": session_id})
        assert (answer.status_code, answer.json()["error_type"]) == (401, "invalid_session")
    assert (await client.get(STATUS, headers={"X-Session-ID": real})).json()["available_credits"] == 10


async def test_a_replayed_session_has_what_is_left(at: At) -> None:
    """A session is the same guest with the same credits from any network and any number of times."""
    headers = {"X-Session-ID": (await at("203.0.113.7").post("/api/guest")).json()["session_id"]}
    for number in range(12):
        body = {"query": f"phone {number}"}
        last = await at(f"203.0.113.{number + 10}").post("/api/query", headers=headers, json=body)
    assert last.json()["error_type"] == "credits_exhausted"
    assert (await at("198.51.100.1").get(STATUS, headers=headers)).json()["available_credits"] == 0


async def test_signed_may_be_the_only_kind(settings: Settings, at: At) -> None:
    """With GUEST_SESSIONS=signed whatever a browser made up is 401 `invalid_session`."""
    container = Container(
        settings=settings.model_copy(update={"guests": GuestSettings.model_validate({"GUEST_SESSIONS": "signed"})})
    )
    client = at("203.0.113.7", create_app(container))
    for made_up in ("g2wsht", "x" * 300, "auth0|123"):
        answer = await client.get(STATUS, headers={"X-Session-ID": made_up})
        assert (answer.status_code, answer.json()["error_type"]) == (401, "invalid_session")
    begun = (await client.post("/api/guest")).json()
    assert (await client.get(STATUS, headers={"X-Session-ID": begun["session_id"]})).status_code == 200
    await container.shutdown()
