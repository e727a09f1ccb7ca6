"""The other routes of the contract."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from containers import Container
from shopassist import __version__
from shopassist.app import create_app
from shopassist.settings import Settings, Storage, StorageSettings
from shopassist.settings.database import DatabaseConfig

Bearer = Callable[..., dict[str, str]]
GUEST = {"X-Session-ID": "g2wsht"}


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html;q=0.5", "text/*"])
async def test_root_is_json_for_programs(client: httpx.AsyncClient, accept: str | None) -> None:
    """HTML only to those who prefer it."""
    answer = await client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.json() == {"message": "AI Shopping Assistant API", "status": "healthy", "version": __version__}


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"])
async def test_root_is_a_page_for_people(client: httpx.AsyncClient, accept: str) -> None:
    """Browsers get the page, which may load nothing from anywhere."""
    answer = await client.get("/", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_health(client: httpx.AsyncClient, settings: Settings) -> None:
    """Alive; the database answers; the details name the storage."""
    assert (await client.get("/health")).json() == {"status": "healthy"}
    database = await client.get("/health/database")
    assert (database.status_code, database.json()["status"]) == (200, "healthy")
    detailed = (await client.get("/health/detailed")).json()
    assert detailed["database"]["storage"] == settings.storage.storage.value
    assert "jobs" in detailed["components"]


async def test_a_database_that_is_away_is_503_with_retry_after(settings: Settings) -> None:
    """Alive all the same, with a clear sentence and nothing of ours in it."""
    away = DatabaseConfig(database_url=SecretStr("postgresql://user:hidden@127.0.0.1:1/d"))
    storage = StorageSettings(storage=Storage.POSTGRES)
    container = Container(settings=settings.model_copy(update={"database": away, "storage": storage}))
    transport = httpx.ASGITransport(create_app(container), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/health/database")).status_code == 503
        assert (await client.get("/health/detailed")).status_code == 503
        answers = [
            await client.get("/api/user/credits", headers=GUEST),
            await client.post("/api/query", headers=GUEST, json={"query": "phone"}),
        ]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json()["error_type"] == "storage_unavailable"
        assert int(answer.headers["Retry-After"]) > 0
        assert "hidden" not in answer.text


@pytest.mark.parametrize("path", ["/api/user/credits", "/api/user/credits/status", "/api/credits/status"])
async def test_credit_status(client: httpx.AsyncClient, bearer: Bearer, path: str) -> None:
    """The same under each of its names, for guests and registered users."""
    guest = (await client.get(path, headers=GUEST)).json()
    assert guest == {
        "user_id": "g2wsht",
        "available_credits": 10,
        "max_credits": 10,
        "is_guest": True,
        "can_reset": False,
        "next_reset_time": None,
    }
    user = (await client.get(path, headers=bearer())).json()
    assert (user["max_credits"], user["can_reset"], user["next_reset_time"]) == (50, True, "2026-01-02T12:00:00Z")


async def test_profile(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """What the token says, null where it says nothing, and the credits."""
    profile = (await client.get("/api/user/me", headers=bearer(email="a@example.in", name="A"))).json()
    assert (profile["user_id"], profile["email"], profile["name"], profile["picture"]) == (
        "auth0|123",
        "a@example.in",
        "A",
        None,
    )
    assert set(profile["credits"]) == {
        "available_credits",
        "max_credits",
        "is_guest",
        "can_reset",
        "next_reset_time",
    }


@pytest.mark.parametrize("path", ["/api/consent", "/api/consent/"])
async def test_consent_is_given_once(client: httpx.AsyncClient, bearer: Bearer, path: str) -> None:
    """With or without a final slash, without a redirect; a second record is 400."""
    first = await client.post(path, headers=bearer(), json={"marketing_consent": True})
    assert first.status_code == 200
    assert first.json() == {
        "user_id": "auth0|123",
        "terms_accepted": True,
        "marketing_consent": True,
        "timestamp": "2026-01-01T12:00:00Z",
    }
    second = await client.post(path, headers=bearer(), json={})
    assert (second.status_code, second.json()["error_type"]) == (400, "consent_exists")


async def test_terms_must_be_accepted(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """400 and no record."""
    answer = await client.post("/api/consent", headers=bearer(), json={"terms_accepted": False})
    assert answer.status_code == 400
    assert (await client.get("/api/consent/me", headers=bearer())).status_code == 404


async def test_consent_is_read_and_updated(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """404 before there is a record; afterwards marketing consent can be withdrawn."""
    assert (await client.get("/api/consent/me", headers=bearer())).status_code == 404
    assert (await client.put("/api/consent/me", headers=bearer(), json={})).status_code == 404
    await client.post("/api/consent", headers=bearer(), json={"marketing_consent": True})
    updated = await client.put("/api/consent/me", headers=bearer(), json={"marketing_consent": False})
    assert updated.json()["marketing_consent"] is False
    assert (await client.get("/api/consent/me", headers=bearer())).json() == updated.json()


async def test_all_consents_in_pages(client: httpx.AsyncClient, bearer: Bearer) -> None:
    """Following the Link header leads through every record once."""
    subjects = [f"auth0|{number}" for number in range(5)]
    for subject in subjects:
        await client.post("/api/consent", headers=bearer(subject), json={})
    admin = bearer("auth0|admin", scope="shopassist:admin")
    url, seen = "/api/consent/admin/all?limit=2", []
    while url:
        page = await client.get(url, headers=admin)
        seen += [record["user_id"] for record in page.json()]
        link = re.fullmatch(r'<(.*)>; rel="next"', page.headers.get("Link", ""))
        url = str(page.url.join(link[1])) if link else ""
    assert seen == subjects


@pytest.mark.parametrize("query", ["cursor=%00", "cursor=!!", "limit=0", "limit=1001", "limit=x", "cursor=gICA"])
async def test_bad_pages_are_422(client: httpx.AsyncClient, bearer: Bearer, query: str) -> None:
    """A cursor that we did not give out is refused by name."""
    answer = await client.get(f"/api/consent/admin/all?{query}", headers=bearer(scope="shopassist:admin"))
    assert answer.status_code == 422


@pytest.mark.parametrize("origin", ["http://localhost:5173", "http://localhost:3000"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_browsers_may_call_from_the_frontend(client: httpx.AsyncClient, origin: str, method: str) -> None:
    """A preflight with the headers that the page sends is granted."""
    answer = await client.options(
        "/api/query",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type, authorization, x-session-id",
        },
    )
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert method in answer.headers["Access-Control-Allow-Methods"]


async def test_other_origins_may_not(client: httpx.AsyncClient) -> None:
    """An unknown page is granted nothing."""
    answer = await client.get("/", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/maintenance/cleanup", "/api/health/database", "/nowhere"])
async def test_what_is_not_there_is_404(client: httpx.AsyncClient, path: str) -> None:
    """The open maintenance routes of the old product are gone."""
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error_type"] == "not_found"


def fail(*_: object) -> Any:
    """Raise an error that nothing expects."""
    raise RuntimeError("a secret")


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("credit_service", "/api/user/credits"),
        ("guest_sessions", "/api/user/credits/transactions"),
        ("rate_limits", "/api/consents"),
        ("export_service", "/api/user/export"),
        ("notice_service", "/api/notices"),
        ("availability", "/health/ready"),
    ],
)
async def test_an_unexpected_error_shows_nothing(
    client: httpx.AsyncClient, container: Container, capsys: pytest.CaptureFixture[str], part: str, path: str
) -> None:
    """500 with a sentence of ours and all headers, and one line in the log, wherever it happens."""
    getattr(container, part).override(fail)
    sent = {**GUEST, "X-Request-ID": "unlucky", "Origin": "http://localhost:5173"}
    answer = await client.get(path, headers=sent)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Something went wrong on our side.", "error_type": "internal_error"}
    assert answer.headers["X-Request-ID"] == "unlucky"
    assert answer.headers["Access-Control-Allow-Origin"] == sent["Origin"]
    assert answer.headers["X-Frame-Options"] == "DENY"
    [line] = [line for line in capsys.readouterr().out.splitlines() if "unexpected_error" in line]
    assert "unlucky" in line
    assert "a secret" not in line


async def test_an_error_in_the_middle_of_an_answer_is_logged(
    client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing follows that could be taken for the rest."""
    monkeypatch.setattr("shopassist.privacy.service.get_personal_data_tables", lambda *_: [None])
    answer = await client.get("/api/user/export", headers={**GUEST, "X-Request-ID": "unlucky"})
    assert answer.text.endswith('"held":{')
    [line] = [line for line in capsys.readouterr().out.splitlines() if "unexpected_error" in line]
    assert "unlucky" in line


async def test_openapi_declares_errors_and_examples(app: FastAPI) -> None:
    """Each operation under /api declares what it may answer with."""
    schema = app.openapi()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            if path.startswith("/api"):
                everyone = {"401", "429"} if operation.get("security") else set()
                assert everyone | {"422", "503"} <= set(operation["responses"]), path
    assert "429" in schema["paths"]["/api/query"]["post"]["responses"]
    assert schema["components"]["schemas"]["QueryRequest"]["properties"]["query"]["examples"]


async def test_two_apps_keep_to_their_own_containers(client: httpx.AsyncClient) -> None:
    """A second app in the process does not re-point the first."""
    settings = Settings(storage={"STORAGE": "memory"}, credits={"MAX_GUEST_CREDITS": 3})
    second = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(Container(settings=settings))), base_url="http://test"
    )
    async with second:
        assert (await second.get("/api/user/credits", headers=GUEST)).json()["max_credits"] == 3
    assert (await client.get("/api/user/credits", headers=GUEST)).json()["max_credits"] == 10


@pytest.mark.parametrize("body", [b"\xff\xfe", b"v\x8fO]\xb1", b"[" * 10_000], ids=["UTF-16", "noise", "deep"])
async def test_a_body_that_cannot_be_read_is_not_valid(client: httpx.AsyncClient, bearer: Bearer, body: bytes) -> None:
    """Whatever its bytes are, as the description says."""
    headers = {**bearer(scope="shopassist:admin"), "Content-Type": "application/json"}
    for method, path in (
        ("POST", "/api/query"),
        ("PUT", "/api/consent/me"),
        ("POST", "/api/admin/credits/auth0|1/adjust"),
    ):
        answer = await client.request(method, path, headers=headers, content=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error_type"] == "validation_error"
