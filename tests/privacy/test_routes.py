"""Export, erasure and guest merges over HTTP."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from containers import Container
from shopassist.cache.models import QueryCache
from shopassist.consent.models import NoticePublication
from shopassist.credits.models import CreditTransaction
from shopassist.privacy.models import UserExport
from shopassist.query.models import Answer, ConversationContext
from shopassist.settings import Storage
from tests.support.helpers import FixedClock

Bearer = Callable[..., dict[str, str]]
GUEST = {"X-Session-ID": "guest-1"}


async def ask(client: httpx.AsyncClient, headers: dict[str, str], query: str = "phone", **more: str) -> httpx.Response:
    """Ask a question."""
    return await client.post("/api/query", json={"query": query}, headers={**headers, **more})


async def test_an_export_is_one_document_of_the_documented_shape(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """The export has only the caller's rows, is not cacheable, and is a file download."""
    await ask(client, bearer(), **{"Idempotency-Key": "k"})
    await ask(client, GUEST)
    await client.post("/api/consent", json={}, headers=bearer())
    response = await client.get("/api/user/export", headers=bearer())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-disposition"].startswith("attachment")
    export = UserExport.model_validate_json(response.content)
    assert (export.user_id, export.is_guest) == ("auth0|123", False)
    assert [row["amount"] for row in export.held["transactions"]] == [50, -1]
    assert len(export.held["consents"]) == len(export.held["remembered_answers"]) == 1
    assert "guest-1" not in response.text


async def test_a_guest_can_export_the_session(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """The session id alone identifies a guest; 401 when it names a registered account."""
    await ask(client, GUEST)
    export = UserExport.model_validate_json((await client.get("/api/user/export", headers=GUEST)).content)
    assert export.is_guest
    assert len(export.held["transactions"]) == 2
    await client.get("/api/user/me", headers=bearer("plain"))
    refused = await client.get("/api/user/export", headers={"X-Session-ID": "plain"})
    assert (refused.status_code, refused.json()["error_type"]) == (401, "invalid_session")
    assert (await client.delete("/api/user", headers={"X-Session-ID": "plain"})).status_code == 401


async def test_a_long_history_is_exported_completely(
    client: httpx.AsyncClient, bearer: Bearer, container: Container
) -> None:
    """Over several pages, each row once and in order."""
    async with container.unit_of_work()() as work:
        for number in range(1, 1201):
            await work.credits.create_transaction(
                CreditTransaction(user_id="auth0|123", transaction_type="adjust", amount=1, balance_after=number)
            )
    export = UserExport.model_validate_json((await client.get("/api/user/export", headers=bearer())).content)
    ids = [one["id"] for one in export.held["transactions"]]
    assert len(ids) == 1200
    assert ids == sorted(set(ids))


async def test_erasing_leaves_nothing_and_gives_a_receipt(
    client: httpx.AsyncClient, bearer: Bearer, clock: FixedClock
) -> None:
    """The same receipt the second time; then the same token is a new account that was not refilled."""
    await ask(client, bearer())
    await client.post("/api/consent", json={}, headers=bearer())
    first = await client.delete("/api/user", headers=bearer())
    assert first.status_code == 200
    assert first.json()["finished_at"]
    assert first.json()["erased"] == {"account": 1, "holds": 0, "consents": 1, "consent_history": 1}
    assert first.json()["pseudonymised"] == {"transactions": 2}
    assert "auth0" not in first.text
    assert (await client.delete("/api/user", headers=bearer())).json() == first.json()
    assert not any((await client.get("/api/user/export", headers=bearer())).json()["held"].values())
    assert (await client.get("/api/consent/me", headers=bearer())).status_code == 404
    clock.move(seconds=1)
    assert (await client.get("/api/user/credits", headers=bearer())).json()["available_credits"] == 49


async def test_erasing_gives_guests_no_credits(client: httpx.AsyncClient, clock: FixedClock) -> None:
    """A guest's balance stays the same."""
    await ask(client, GUEST)
    assert (await client.delete("/api/user", headers=GUEST)).status_code == 200
    clock.move(seconds=1)
    assert (await client.get("/api/user/credits", headers=GUEST)).json()["available_credits"] == 9


async def test_unknown_callers_cannot_be_erased(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """404 for an unknown caller, 401 without identity."""
    assert (await client.delete("/api/user", headers=bearer("auth0|new"))).status_code == 404
    assert (await client.delete("/api/user")).status_code == 401
    assert (await client.get("/api/user/export")).status_code == 401


class Slow:
    """Assistant that waits until it is released."""

    def __init__(self, answer: Answer) -> None:
        """Return `answer` once released."""
        self.answer_later = answer
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Answer."""
        self.began.set()
        await self.go_on.wait()
        return self.answer_later


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "k"}])
async def test_a_question_in_progress_creates_no_rows_after_erasure(
    client: httpx.AsyncClient, container: Container, assistant: Any, key: dict[str, str]
) -> None:
    """It ends without a charge, and neither the account nor an answer is there afterwards."""
    slow = Slow(assistant.outcome)
    container.assistant.override(slow)
    asking = [asyncio.create_task(ask(client, GUEST, **key)) for _ in range(1 if key else 2)]
    async with asyncio.timeout(20):
        await slow.began.wait()
    assert (await client.delete("/api/user", headers=GUEST)).json()["erased"]["holds"] == 1
    slow.go_on.set()
    async with asyncio.timeout(20):
        answers = [await task for task in asking]
    for answer in answers:
        assert answer.status_code == 409 or answer.json()["metadata"]["charged"] == 0, answer.text
    assert not any((await client.get("/api/user/export", headers=GUEST)).json()["held"].values())


async def test_cached_answers_have_no_personal_data(
    client: httpx.AsyncClient, container: Container, bearer: Bearer
) -> None:
    """With the real assistant: who asked, and their own words, are not in what others are served."""
    container.assistant.reset_override()
    headers = bearer("auth0|marker-of-a-person")
    await ask(client, headers, "hello i am marker-of-a-person, my number is 9876501234: best 5G phone for me")
    async with container.unit_of_work()() as work:
        stored = await work.cache.contents()
    texts = await cached_texts(container)
    assert stored.cache_size == len(texts)
    assert not [text for text in texts if "marker" in text or "9876501234" in text]


async def cached_texts(container: Container) -> list[str]:
    """Return all stored answers as text."""
    if container.settings().storage.storage is Storage.MEMORY:
        return [json.dumps(entry.result) for entry in container.memory_store().table(QueryCache).values()]
    from sqlalchemy import text  # noqa: PLC0415

    async with container.database_manager().session() as session:
        return list((await session.execute(text("SELECT result::text FROM query_cache"))).scalars())


async def test_a_guest_who_logs_in_keeps_answers(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """Answers by idempotency key move to the user, credits are not added, and a repetition changes nothing."""
    await ask(client, GUEST, **{"Idempotency-Key": "k"})
    body = {"session_id": "guest-1"}
    merged = await client.post("/api/user/merge-guest", json=body, headers=bearer())
    assert (merged.status_code, merged.json()["moved"]) == (200, {"remembered_answers": 1, "consents": 0})
    again = await ask(client, bearer(), **{"Idempotency-Key": "k"})
    assert again.headers["idempotent-replayed"] == "true"
    assert (await client.get("/api/user/credits", headers=bearer())).json()["available_credits"] == 50
    assert (await client.post("/api/user/merge-guest", json=body, headers=bearer())).json() == merged.json()
    other = await client.post("/api/user/merge-guest", json=body, headers=bearer("auth0|other"))
    assert (other.status_code, other.json()["error_type"]) == (409, "guest_already_merged")


@pytest.mark.parametrize(
    ("session", "status"),
    [
        *(("auth0|victim", 404), ("victim", 404), ("unknown", 404), ("with space", 404), ("gs1.forged.code", 404)),
        *(("", 422), ("null", 422), ("x" * 256, 422), ("x" * 5000, 422), (7, 422), (None, 422)),
    ],
)
async def test_sessions_that_cannot_be_merged(
    client: httpx.AsyncClient, bearer: Bearer, session: object, status: int
) -> None:
    """Never 401, at which clients give up their token; what is no session is not repeated."""
    await client.get("/api/user/me", headers=bearer("auth0|victim"))
    await client.get("/api/user/me", headers=bearer("victim"))
    response = await client.post("/api/user/merge-guest", json={"session_id": session}, headers=bearer())
    assert response.status_code == status
    assert "victim" not in response.text
    assert status == 404 or "session_id" in response.text


async def test_a_merge_applies_the_privacy_signal(
    client: httpx.AsyncClient, container: Container, bearer: Bearer
) -> None:
    """No grant of the guest's is moved against it, and it ends the grants of both, whether or not a guest is merged."""
    for purpose in ("terms", "marketing"):
        publication = NoticePublication(purpose=purpose, locale="en", text="Yes?")
        notice = await container.notice_service().publish(publication, "operator")
        yes = {"consents": [{"purpose": purpose, "granted": True, "notice_id": notice.id}]}
        assert (await client.post("/api/consents", headers=GUEST, json=yes)).status_code == 200

    async def marketing_of(headers: dict[str, str]) -> list[tuple[bool, str, str]]:
        entries = (await client.get("/api/consents/history", headers=headers)).json()
        return [(e["granted"], e["source"], e["route"]) for e in entries if e["purpose"] == "marketing"]

    route = "POST /api/user/merge-guest"
    headers = {**bearer(), "Sec-GPC": "1"}
    merged = await client.post("/api/user/merge-guest", json={"session_id": "guest-1"}, headers=headers)
    assert (merged.status_code, merged.json()["moved"]) == (200, {"consents": 2})
    assert await marketing_of(bearer()) == [(False, "guest_merge", route)]
    assert (await marketing_of(GUEST))[0] == (False, "privacy_signal", route)
    for session_id in ("guest-1", "unknown", "null"):
        await client.post("/api/consents", headers=bearer(), json=yes)
        await client.post("/api/user/merge-guest", json={"session_id": session_id}, headers=headers)
        assert (await marketing_of(bearer()))[0] == (False, "privacy_signal", route)


async def test_a_merge_without_the_signal_moves_the_grant(
    client: httpx.AsyncClient, container: Container, bearer: Bearer
) -> None:
    """As before; and a guest who sends the signal changes nothing, since guests cannot merge."""
    publication = NoticePublication(purpose="marketing", locale="en", text="Yes?")
    notice = await container.notice_service().publish(publication, "operator")
    yes = {"consents": [{"purpose": "marketing", "granted": True, "notice_id": notice.id}]}
    await client.post("/api/consents", headers=GUEST, json=yes)
    body = {"session_id": "guest-1"}
    assert (await client.post("/api/user/merge-guest", json=body, headers={**GUEST, "Sec-GPC": "1"})).status_code == 401
    assert (await client.post("/api/user/merge-guest", json=body, headers=bearer())).status_code == 200
    [state] = (await client.get("/api/consents", headers=bearer())).json()
    assert (state["granted"], state["source"]) == (True, "guest_merge")


async def test_guests_do_not_merge(client: httpx.AsyncClient) -> None:
    """Only a registered user can merge a guest."""
    response = await client.post("/api/user/merge-guest", json={"session_id": "guest-2"}, headers=GUEST)
    assert response.status_code == 401
