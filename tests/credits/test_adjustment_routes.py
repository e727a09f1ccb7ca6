"""`POST /api/admin/credits/{user_id}/adjust`."""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from containers import Container
from tests.support.hostile_text import MISSING_VALUES

Bearer = Callable[..., dict[str, str]]
USER = "auth0|123"


def path(user_id: str = USER) -> str:
    """Return the path of the route for an account."""
    return f"/api/admin/credits/{quote(user_id, safe='')}/adjust"


@pytest.fixture
def admin(bearer: Bearer) -> dict[str, str]:
    """Return headers of an administrator."""
    return bearer("auth0|admin", scope="openid shopassist:admin")


@pytest.mark.parametrize("user_id", [USER, "a/b", "a/adjust", "ünï cödé"])
async def test_an_adjustment(
    client: httpx.AsyncClient, container: Container, admin: dict[str, str], user_id: str
) -> None:
    """The response has the change, the actor and the balance; the history shows it without the administrator."""
    await container.credit_service().get_user_credits(user_id)
    answer = await client.post(path(user_id), headers=admin, json={"amount": -5, "reason": " A refund  "})
    assert answer.status_code == 200
    assert answer.json() == {
        "user_id": user_id,
        "amount": -5,
        "reason": "A refund",
        "actor": "auth0|admin",
        "available_credits": 45,
        "max_credits": 50,
    }
    row, _ = await container.credit_service().get_user_transactions(user_id)
    assert (row.actor, row.description, row.amount) == ("auth0|admin", "A refund", -5)
    assert "Idempotent-Replayed" not in answer.headers


async def test_only_administrators(client: httpx.AsyncClient, container: Container, bearer: Bearer) -> None:
    """401 without identity and for guests, 403 for other users; nothing changes."""
    await container.credit_service().get_user_credits(USER)
    body = {"amount": 5, "reason": "x"}
    assert (await client.post(path(), json=body)).status_code == 401
    assert (await client.post(path(), headers={"X-Session-ID": "g"}, json=body)).status_code == 401
    refused = await client.post(path(), headers=bearer(scope="shopassist:adm"), json=body)
    assert (refused.status_code, refused.json()["error_type"]) == (403, "permission_denied")
    assert await container.credit_service().check_credits(USER) == 50


async def test_refusals(client: httpx.AsyncClient, container: Container, admin: dict[str, str]) -> None:
    """404 without an account, 409 if it would be overdrawn, each with its error type."""
    await container.credit_service().get_user_credits(USER)
    unknown = await client.post(path("unknown"), headers=admin, json={"amount": 5, "reason": "x"})
    assert (unknown.status_code, unknown.json()["error_type"]) == (404, "not_found")
    for amount in (-51, 2**31 - 1):
        overdraw = await client.post(path(), headers=admin, json={"amount": amount, "reason": "x"})
        assert (overdraw.status_code, overdraw.json()["error_type"]) == (409, "overdraw")


@pytest.mark.parametrize(
    "body",
    [
        *(
            {"amount": amount, "reason": "x"}
            for amount in (0, 2**31, -(2**31), 2**63, 10**30, True, "1", 1.0, 1.5, None)
        ),
        *({"amount": 1, "reason": reason} for reason in ("", "  ", "x" * 501, "a\x00b", 7, None)),
        {"amount": 1},
        {"reason": "x"},
        [],
    ],
    ids=str,
)
async def test_what_is_not_valid_is_422(
    client: httpx.AsyncClient, container: Container, admin: dict[str, str], body: Any
) -> None:
    """Amounts are non-zero integers of 31 bits; a storable reason is required."""
    await container.credit_service().get_user_credits(USER)
    answer = await client.post(path(), headers=admin, json=body)
    assert answer.status_code == 422
    assert await container.credit_service().check_credits(USER) == 50


async def test_a_lone_surrogate_is_422(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """JSON can contain text that PostgreSQL cannot store."""
    content = b'{"amount": 1, "reason": "\\ud800"}'
    answer = await client.post(path(), headers={**admin, "Content-Type": "application/json"}, content=content)
    assert answer.status_code == 422


@pytest.mark.parametrize("user_id", ["x" * 256, "a\x00b"])
async def test_invalid_user_ids_are_422(client: httpx.AsyncClient, admin: dict[str, str], user_id: str) -> None:
    """The error names the field."""
    answer = await client.post(path(user_id), headers=admin, json={"amount": 1, "reason": "x"})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "invalid_input")


async def test_a_repeat_with_a_key_is_replayed(
    client: httpx.AsyncClient, container: Container, admin: dict[str, str], bearer: Bearer
) -> None:
    """The same key and body return the stored response, marked as replayed; another change is 422."""
    await container.credit_service().get_user_credits(USER)
    keyed = {**admin, "Idempotency-Key": "k-1"}
    first = await client.post(path(), headers=keyed, json={"amount": 5, "reason": "x"})
    second = await client.post(path(), headers=keyed, json={"reason": "x", "amount": 5})
    assert (second.status_code, second.headers["Idempotent-Replayed"]) == (200, "true")
    assert second.json() == first.json()
    for url, body in ((path(), {"amount": 6, "reason": "x"}), (path("unknown"), {"amount": 5, "reason": "x"})):
        other = await client.post(url, headers=keyed, json=body)
        assert (other.status_code, other.json()["error_type"]) == (422, "idempotency_key_reused")
    second_admin = bearer("auth0|second", scope="shopassist:admin")
    third = await client.post(
        path(), headers={**second_admin, "Idempotency-Key": "k-1"}, json={"amount": 5, "reason": "x"}
    )
    assert (third.json()["available_credits"], "Idempotent-Replayed" in third.headers) == (60, False)


async def test_concurrent_repeats_adjust_once(
    client: httpx.AsyncClient, container: Container, admin: dict[str, str]
) -> None:
    """Of ten concurrent requests with one key, one adjusts and all get the same response."""
    await container.credit_service().get_user_credits(USER)
    keyed = {**admin, "Idempotency-Key": "k-1"}
    answers = await asyncio.gather(
        *[client.post(path(), headers=keyed, json={"amount": 5, "reason": "x"}) for _ in range(10)]
    )
    assert {answer.json()["available_credits"] for answer in answers} == {55}
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256])
async def test_invalid_keys_are_422(client: httpx.AsyncClient, admin: dict[str, str], key: str) -> None:
    """A key is 1 to 255 printable ASCII characters."""
    headers = [(name.encode(), value.encode()) for name, value in {**admin, "Idempotency-Key": key}.items()]
    answer = await client.post(path(), headers=headers, json={"amount": 5, "reason": "x"})
    assert answer.status_code == 422


async def test_the_text_of_a_missing_value_is_no_key(
    client: httpx.AsyncClient, container: Container, admin: dict[str, str]
) -> None:
    """422 that names the header, and nothing is done: clients with the same fault would get each other's answers."""
    for key in MISSING_VALUES:
        headers = {**admin, "Idempotency-Key": key}
        for url, body in ((path(), {"amount": 5, "reason": "x"}), ("/api/query", {"query": "phone"})):
            answer = await client.post(url, headers=headers, json=body)
            assert answer.status_code == 422, key
            assert [error["loc"] for error in answer.json()["errors"]] == [["header", "idempotency-key"]]
    assert (await container.credit_service().get_user_credits(USER)).available_credits == 50


@pytest.mark.parametrize("key", ["0", "nulls", '"8e03978e-40d5"', "{3F2504E0-4F89}", "x.null"])
async def test_keys_that_resemble_a_missing_value(client: httpx.AsyncClient, admin: dict[str, str], key: str) -> None:
    """Everything else is a key."""
    answer = await client.post("/api/query", headers={**admin, "Idempotency-Key": key}, json={"query": "phone"})
    assert answer.status_code == 200


async def test_health_shows_the_last_verification(client: httpx.AsyncClient, container: Container) -> None:
    """Health shows the numbers of accounts and of drifting accounts, without user ids."""
    await container.credit_service().get_user_credits(USER)
    await container.ledger_reconciliation().verify()
    ledger = (await client.get("/health/detailed")).json()["components"]["ledger"]
    assert (ledger["accounts"], ledger["drifting_accounts"]) == (1, 0)
