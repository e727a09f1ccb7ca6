"""`/api/consents`, `/api/notices`, the privacy signal, and questions that require consent."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from containers import Container
from shopassist.consent.models import NoticePublication, compute_sha256
from shopassist.settings import ConsentSettings, Settings
from tests.support.helpers import FixedClock

Bearer = Callable[..., dict[str, str]]
GUEST = {"X-Session-ID": "g2wsht"}
GPC = {"Sec-GPC": "1"}
QUESTION = {"query": "phone"}


@pytest.fixture
def required() -> bool:
    """Return whether questions require consent."""
    return False


@pytest.fixture
def settings(settings: Settings, required: bool) -> Settings:
    """Return the settings of each storage."""
    return settings.model_copy(update={"consent": ConsentSettings(required=required, grace_hours=48)})


@pytest.fixture(params=["guest", "registered"])
def who(request: pytest.FixtureRequest, bearer: Bearer) -> dict[str, str]:
    """Return the headers of a guest or of a registered user."""
    return GUEST if request.param == "guest" else bearer()


async def publish(container: Container, purpose: str = "terms", text: str = "Be good.", **more: Any) -> int:
    """Publish a text and return its id."""
    publication = NoticePublication(purpose=purpose, locale=more.pop("locale", "en"), text=text, **more)
    return (await container.notice_service().publish(publication, "operator")).id or 0


def yes(purpose: str, notice_id: int) -> dict[str, Any]:
    """Return a body that grants one purpose."""
    return {"consents": [{"purpose": purpose, "granted": True, "notice_id": notice_id}]}


async def marketing_of(client: httpx.AsyncClient, who: dict[str, str]) -> list[tuple[bool, str, str]]:
    """Return the decisions about marketing, newest first, read without the signal."""
    entries = (await client.get("/api/consents/history", headers=who)).json()
    return [(entry["granted"], entry["source"], entry["route"]) for entry in entries if entry["purpose"] == "marketing"]


async def test_publish_grant_withdraw_and_prove(
    client: httpx.AsyncClient, container: Container, who: dict[str, str], clock: FixedClock
) -> None:
    """Read the text, agree to it, see where it stands, take it back in one call, and see how it came about."""
    await publish(container, text="Be good — ₹.")
    [notice] = (await client.get("/api/notices")).json()
    assert (notice["purpose"], notice["version"], notice["locale"]) == ("terms", 1, "en")
    assert notice["sha256"] == compute_sha256(notice["text"])
    assert (await client.get("/api/consents", headers=who)).json() == [
        {
            "purpose": "terms",
            "granted": False,
            "timestamp": None,
            "source": None,
            "notice": None,
            "current_version": 1,
        }
    ]
    answer = await client.post("/api/consents", headers=who, json=yes("terms", notice["id"]))
    assert answer.status_code == 200
    shown = {key: notice[key] for key in ("id", "purpose", "version", "locale", "sha256")}
    assert answer.json() == [
        {
            "purpose": "terms",
            "granted": True,
            "timestamp": "2026-01-01T12:00:00Z",
            "source": "consents",
            "notice": shown,
            "current_version": 1,
        }
    ]
    assert (await client.get("/api/consents", headers=who)).json() == answer.json()
    clock.move(hours=1)
    for _ in range(2):
        withdrawn = await client.delete("/api/consents/terms", headers=who)
        assert (withdrawn.status_code, withdrawn.json()["granted"]) == (200, False)
    history = (await client.get("/api/consents/history", headers=who)).json()
    assert [(entry["granted"], entry["route"], entry["notice"]) for entry in history] == [
        (False, "DELETE /api/consents/{purpose}", None),
        (True, "POST /api/consents", shown),
    ]
    assert {*history[0]} == {"id", "purpose", "granted", "timestamp", "source", "route", "notice"}
    assert (await client.get(f"/api/notices/{notice['id']}")).json() == notice


async def test_notices_by_language(client: httpx.AsyncClient, container: Container) -> None:
    """The language comes from the parameter or else the browser; earlier texts can be read by id."""
    old = await publish(container)
    await publish(container, text="Be better.", version=2)
    await publish(container, text="Accha bano.", locale="hi", version=2)

    async def text(**arguments: Any) -> str:
        [notice] = (await client.get("/api/notices", **arguments)).json()
        return str(notice["text"])

    assert await text() == "Be better."
    assert await text(params={"locale": "hi-IN"}) == "Accha bano."
    assert await text(headers={"Accept-Language": "fr, en;q=0.5, hi;q=0.8, *;q=0.1"}) == "Accha bano."
    assert await text(headers={"Accept-Language": "hi;q=0, ;;,q=1,=,en;q=x"}) == "Be better."
    assert (await client.get(f"/api/notices/{old}")).json()["text"] == "Be good."
    assert (await client.get("/api/notices/12345")).status_code == 404
    for wrong in ("/api/notices?locale=english", "/api/notices/0", "/api/notices/x"):
        assert (await client.get(wrong)).status_code == 422, wrong


async def test_refusals(client: httpx.AsyncClient, container: Container, who: dict[str, str]) -> None:
    """401 without identity, 422 without purpose, answer or notice, 409 for an outdated notice; nothing is recorded."""
    notice = await publish(container)
    for method, path in (("POST", ""), ("GET", ""), ("GET", "/history"), ("DELETE", "/terms")):
        assert (await client.request(method, f"/api/consents{path}", json=yes("terms", notice))).status_code == 401
    wrong: list[Any] = [{}, {"consents": []}, {"consents": [{"purpose": "terms", "granted": True}]}, {"consents": [{}]}]
    for body in wrong:
        assert (await client.post("/api/consents", headers=who, json=body)).status_code == 422, body
    unknown = await client.post("/api/consents", headers=who, json=yes("profiling", notice))
    assert (unknown.status_code, unknown.json()["error_type"]) == (404, "not_found")
    outdated = await client.post("/api/consents", headers=who, json=yes("terms", notice + 1))
    assert (outdated.status_code, outdated.json()["error_type"]) == (409, "notice_outdated")
    assert [shown["id"] for shown in outdated.json()["notices"]] == [notice]
    assert (await client.delete("/api/consents/Terms", headers=who)).status_code == 422
    assert (await client.delete("/api/consents/profiling", headers=who)).status_code == 404
    assert (await client.get("/api/consents/history?cursor=!", headers=who)).status_code == 422
    assert (await client.get("/api/consents/history", headers=who)).json() == []


async def test_history_in_pages(client: httpx.AsyncClient, container: Container, who: dict[str, str]) -> None:
    """The `Link` headers lead through all pages."""
    for number in range(5):
        notice = await publish(container, text=f"Be {number}.")
        await client.post("/api/consents", headers=who, json=yes("terms", notice))
    url, versions = "/api/consents/history?limit=2", []
    while url:
        page = await client.get(url, headers=who)
        versions += [entry["notice"]["version"] for entry in page.json()]
        url = str(page.url.join(page.links["next"]["url"])) if page.links else ""
    assert versions == [5, 4, 3, 2, 1]


async def test_the_signal_is_recorded_once(client: httpx.AsyncClient, container: Container, bearer: Bearer) -> None:
    """Each of these routes records the signal once, also right after a grant."""
    marketing = await publish(container, "marketing", "Mail?")
    for method, path in (
        ("POST", "/api/query"),
        ("GET", "/api/consents"),
        ("GET", "/api/consents/history"),
        ("DELETE", "/api/consents/terms"),
    ):
        for who in (bearer(f"auth0|{path}"), {"X-Session-ID": path}):
            for _ in range(2):
                await client.post("/api/consents", headers=who, json=yes("marketing", marketing))
                for _ in range(2):
                    body = QUESTION if method == "POST" else None
                    answer = await client.request(method, path, headers={**who, **GPC}, json=body)
                    assert answer.status_code == 200
            route = path.replace("/terms", "/{purpose}")
            once = [(False, "privacy_signal", f"{method} {route}"), (True, "consents", "POST /api/consents")]
            assert await marketing_of(client, who) == once * 2


async def test_other_header_values_are_no_signal(client: httpx.AsyncClient, container: Container) -> None:
    """Only the value `1` is a signal."""
    marketing = await publish(container, "marketing", "Mail?")
    for value in ("0", "true", "", "11"):
        who = {"X-Session-ID": f"sends-{value}"}
        headers = {**who, "Sec-GPC": value}
        answer = await client.post("/api/consents", headers=headers, json=yes("marketing", marketing))
        assert answer.status_code == 200
        await client.post("/api/query", headers=headers, json=QUESTION)
        assert (await marketing_of(client, who))[0][0]


async def test_a_grant_against_the_signal(client: httpx.AsyncClient, container: Container, who: dict[str, str]) -> None:
    """The response is 409; without the signal the grant succeeds."""
    marketing = await publish(container, "marketing", "Mail?")
    refused = await client.post("/api/consents", headers={**who, **GPC}, json=yes("marketing", marketing))
    assert (refused.status_code, refused.json()["error_type"]) == (409, "privacy_signal_conflict")
    assert refused.json()["purposes"] == ["marketing"]
    assert await marketing_of(client, who) == []
    assert (await client.post("/api/consents", headers=who, json=yes("marketing", marketing))).status_code == 200
    assert (await client.get("/.well-known/gpc.json")).json()["gpc"] is True


async def test_the_signal_counts_when_the_decision_is_refused(
    client: httpx.AsyncClient, container: Container, who: dict[str, str]
) -> None:
    """Marketing is off although the decision that came with the signal named an outdated notice."""
    marketing = await publish(container, "marketing", "Mail?")
    await client.post("/api/consents", headers=who, json=yes("marketing", marketing))
    refused = await client.post("/api/consents", headers={**who, **GPC}, json=yes("terms", 12345))
    assert refused.status_code == 404
    assert (await marketing_of(client, who))[0][:2] == (False, "privacy_signal")


async def test_the_signal_on_the_old_routes(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """With the signal they answer with marketing off; without it they are unchanged."""
    user = bearer()
    created = await client.post("/api/consent", headers={**user, **GPC}, json={"marketing_consent": True})
    assert (created.status_code, created.json()["marketing_consent"]) == (200, False)
    on = await client.put("/api/consent/me", headers=user, json={"marketing_consent": True})
    assert on.json()["marketing_consent"]
    assert not (await client.get("/api/consent/me", headers={**user, **GPC})).json()["marketing_consent"]
    assert not (await client.put("/api/consent/me", headers={**user, **GPC}, json={"marketing_consent": True})).json()[
        "marketing_consent"
    ]
    assert [entry[:2] for entry in await marketing_of(client, user)] == [
        (False, "privacy_signal"),
        (True, "record"),
        (False, "privacy_signal"),
    ]


class TestRequired:
    """With `CONSENT_REQUIRED=true`."""

    @pytest.fixture
    def required(self) -> bool:
        """Require consent for questions."""
        return True

    async def ask(self, client: httpx.AsyncClient, who: dict[str, str], **more: Any) -> httpx.Response:
        """Ask."""
        return await client.post("/api/query", headers=who, json={**QUESTION, **more})

    async def test_a_question_requires_consent(
        self, client: httpx.AsyncClient, container: Container, who: dict[str, str], assistant: Any
    ) -> None:
        """403 with the version and where to agree, nothing charged, not even from the cache; then 200; then again."""
        notice = await publish(container)
        refused = await self.ask(client, who)
        assert refused.status_code == 403
        body = refused.json()
        assert (body["error_type"], body["agree_at"], body["read_at"]) == (
            "consent_required",
            "/api/consents",
            "/api/notices",
        )
        [shown] = body["notices"]
        assert (shown["id"], shown["version"], shown["sha256"]) == (notice, 1, compute_sha256("Be good."))
        assert assistant.asked == []
        agreed = await client.post(body["agree_at"], headers=who, json=yes("terms", shown["id"]))
        assert agreed.status_code == 200
        answer = await self.ask(client, who)
        assert (answer.status_code, answer.json()["metadata"]["charged"]) == (200, 1)
        other = {"X-Session-ID": "another"}
        assert (await self.ask(client, other)).status_code == 403  # the answer is in the cache by now
        await client.delete("/api/consents/terms", headers=who)
        assert (await self.ask(client, who)).status_code == 403

    async def test_a_refused_question_costs_nothing(
        self, client: httpx.AsyncClient, container: Container, who: dict[str, str]
    ) -> None:
        """Not even an account is made, and a retry under a key is refused as well."""
        await publish(container)
        for _ in range(2):
            answer = await client.post("/api/query", headers={**who, "Idempotency-Key": "k"}, json=QUESTION)
            assert answer.status_code == 403
        assert (await container.audit().reconcile_page()).accounts == 0

    async def test_a_new_version_asks_again_after_its_grace(
        self, client: httpx.AsyncClient, container: Container, who: dict[str, str], clock: FixedClock
    ) -> None:
        """Who agreed to the version before may put it off for 48 hours; who has not agreed at all may not."""
        first = await publish(container)
        await client.post("/api/consents", headers=who, json=yes("terms", first))
        second = await publish(container, text="Be better.")
        assert (await self.ask(client, who)).status_code == 200
        newcomer = {"X-Session-ID": "newcomer"}
        refused = await self.ask(client, newcomer)
        assert [notice["id"] for notice in refused.json()["notices"]] == [second]
        clock.move(hours=47)
        container.published_notices().invalidate()
        assert (await self.ask(client, who)).status_code == 200
        clock.move(hours=1)
        container.published_notices().invalidate()
        assert (await self.ask(client, who)).status_code == 403
        await client.post("/api/consents", headers=who, json=yes("terms", second))
        assert (await self.ask(client, who)).status_code == 200

    async def test_any_language_of_the_version_is_accepted(
        self, client: httpx.AsyncClient, container: Container, who: dict[str, str]
    ) -> None:
        """A translation is the same version."""
        await publish(container)
        hindi = await publish(container, text="Accha bano.", locale="hi", version=1)
        await client.post("/api/consents", headers=who, json=yes("terms", hindi))
        assert (await self.ask(client, who)).status_code == 200

    async def test_without_published_terms_every_question_is_refused(
        self, client: httpx.AsyncClient, who: dict[str, str], bearer: Bearer
    ) -> None:
        """What was never shown was not agreed to; the old record, which names no text, does not do either."""
        refused = await self.ask(client, who)
        assert (refused.status_code, refused.json()["notices"]) == (403, [])
        user = bearer()
        assert (await client.post("/api/consent", headers=user, json={})).status_code == 200
        assert (await self.ask(client, user)).status_code == 403

    async def test_openapi_documents_the_refusal(self, client: httpx.AsyncClient) -> None:
        """OpenAPI documents the status and the body."""
        schema = (await client.get("/openapi.json")).json()
        refused = schema["paths"]["/api/query"]["post"]["responses"]["403"]
        assert refused["content"]["application/json"]["schema"]["$ref"].endswith("ConsentRequiredBody")
