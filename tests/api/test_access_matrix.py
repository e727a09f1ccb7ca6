"""Routes and identities: which are allowed, and that no identity reads or changes another's data."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.support.access_matrix import (
    BEGIN,
    DOCUMENT,
    END,
    TABLE,
    Identity,
    Row,
    fill_in_path,
    list_routes,
    render_table,
)
from tests.support.http_fixtures import IdentityProvider

USER_A, GUEST_A = "auth0|victim", "victim-session"
SECRET = "planted-secret-of-a"  # noqa: S105 - a marker
MAIL = "planted-secret-of-a@mail.example"
KEY = "a-key-of-a"
"""Which others send as well; so it is theirs too, and their export may show it."""

THEIRS = (USER_A, "auth0%7Cvictim", GUEST_A, SECRET)

Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
def headers(provider: IdentityProvider) -> dict[Identity, dict[str, str]]:
    """How each identity presents itself."""
    long_ago = datetime.now(UTC) - timedelta(days=1)

    def bearer(subject: str, **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {provider.token(subject, **claims)}"}

    return {
        Identity.ANONYMOUS: {},
        Identity.GUEST_A: {"X-Session-ID": GUEST_A},
        Identity.GUEST_B: {"X-Session-ID": "other-session"},
        Identity.USER_A: bearer(USER_A, email=MAIL, name=SECRET),
        Identity.USER_B: bearer("auth0|other"),
        Identity.ADMINISTRATOR: bearer("auth0|boss", scope="shopassist:admin"),
        # The worst that these could be: A's, and an administrator's.
        Identity.EXPIRED: bearer(USER_A, scope="shopassist:admin", iat=long_ago, exp=long_ago + timedelta(hours=1)),
        Identity.OTHER_AUDIENCE: bearer(USER_A, scope="shopassist:admin", aud="https://other.example"),
    }


@pytest.fixture
async def tampered_session(client: httpx.AsyncClient, headers: dict[Identity, dict[str, str]]) -> None:
    """Add a forged session, which was signed for another guest and then changed."""
    session = (await client.post("/api/guest")).json()["session_id"]
    user_id, _, code = session.rpartition(".")
    other = user_id[:-2] + ("AA" if user_id[-2:] != "AA" else "BB")
    headers[Identity.FORGED] = {"X-Session-ID": f"{other}.{code}"}


def test_every_route_has_a_row(app: FastAPI) -> None:
    """Every route is listed with the identities that may use it."""
    assert set(list_routes(app)) - set(TABLE) == set()


def test_the_document_shows_the_table(app: FastAPI) -> None:
    """`make matrix` writes it anew."""
    shown = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == render_table(list_routes(app))


async def asked(client: httpx.AsyncClient, method: str, path: str, row: Row, headers: dict[str, str]) -> httpx.Response:
    """Return the response to the row's own request."""
    return await client.request(method, fill_in_path(path, row.parameters), headers=headers, json=row.body)


@pytest.mark.usefixtures("tampered_session")
async def test_each_identity_is_let_in_where_the_table_says(
    client: httpx.AsyncClient, app: FastAPI, headers: dict[Identity, dict[str, str]]
) -> None:
    """All others are refused: with 401 without an identity, with 403 otherwise."""
    wrong = []
    for method, path in sorted(list_routes(app), key=list(TABLE).index):
        row = TABLE[method, path]
        for identity in Identity:
            answer = await asked(client, method, path, row, headers[identity])
            refused = row.who.refuses(identity)
            if answer.status_code != refused if refused else answer.status_code not in row.answers:
                wrong.append((method, path, identity, answer.status_code, answer.text))
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert wrong == []


async def plant(client: httpx.AsyncClient, headers: dict[Identity, dict[str, str]]) -> str:
    """Give both A's something that is theirs; a cursor into the user's history."""
    for identity in (Identity.USER_A, Identity.GUEST_A):
        own = {**headers[identity], "Idempotency-Key": KEY}
        answer = await client.post("/api/query", headers=own, json={"query": f"a phone for {SECRET}"})
        assert answer.status_code == 200
    consent = {"terms_accepted": True, "marketing_consent": True}
    assert (await client.post("/api/consent", headers=headers[Identity.USER_A], json=consent)).status_code == 200
    adjusted = await client.post(
        f"/api/admin/credits/{USER_A}/adjust",
        headers=headers[Identity.ADMINISTRATOR],
        json={"amount": 5, "reason": SECRET},
    )
    assert adjusted.status_code == 200
    page = await client.get("/api/user/credits/transactions?limit=1", headers=headers[Identity.USER_A])
    assert SECRET in page.text
    return page.headers["Link"].partition("cursor=")[2].partition(">")[0]


async def held_by_a(client: httpx.AsyncClient, headers: dict[Identity, dict[str, str]]) -> list[Any]:
    """Return what A's own requests show."""
    own = ("/api/user/credits", "/api/user/credits/transactions")
    return [
        *[(await client.get(path, headers=headers[Identity.USER_A])).json() for path in (*own, "/api/consent/me")],
        *[(await client.get(path, headers=headers[Identity.GUEST_A])).json() for path in own],
    ]


@pytest.mark.usefixtures("tampered_session")
async def test_no_identity_reads_or_changes_data_of_another(
    client: httpx.AsyncClient, app: FastAPI, headers: dict[Identity, dict[str, str]]
) -> None:
    """Call every route as every other identity, with A's ids, key and cursor in every place of the request."""
    cursor = await plant(client, headers)
    before = await held_by_a(client, headers)
    seen = []
    for identity in Identity:
        if identity in {Identity.USER_A, Identity.GUEST_A}:
            continue
        for method, path in sorted(list_routes(app), key=list(TABLE).index):
            row = TABLE[method, path]
            if identity is Identity.ADMINISTRATOR and row.of_others:
                continue
            for answer in await as_if_a(client, method, path, row, headers[identity], cursor):
                shown = f"{answer.headers} {answer.text}"
                seen += [(method, path, identity, theirs) for theirs in THEIRS if theirs in shown]
    assert seen == []
    assert await held_by_a(client, headers) == before


async def as_if_a(
    client: httpx.AsyncClient, method: str, path: str, row: Row, headers: dict[str, str], cursor: str
) -> list[httpx.Response]:
    """Answers to requests that name A in their path, query, headers and body."""
    names = ("user_id", "session_id", "sub", "guest_id", "account", "caller")
    parameters = {**row.parameters, **({"user_id": USER_A} if "user_id" in row.parameters else {})}
    link = fill_in_path(path, parameters)
    everything = {"Idempotency-Key": KEY, "X-User-ID": USER_A, "X-Forwarded-User": USER_A, "Cookie": ""}
    if "Authorization" in headers:
        everything["X-Session-ID"] = GUEST_A
    body = {**row.body, **dict.fromkeys(names, USER_A)} if isinstance(row.body, dict) else row.body
    return [
        await client.request(method, link, headers=everything | headers, json=body, params=params)
        for params in ({"cursor": cursor}, {"limit": "100", **dict.fromkeys(names, USER_A)})
    ]
