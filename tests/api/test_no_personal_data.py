"""Nothing personal and no secret in logs, figures, cache entries, errors, processes or the API's description.

Everything that a person or an operator may give is marked, every route is driven with it, in success and in failure,
and all that comes out is searched for the marks.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from containers import Container
from shopassist.catalog.importer.importer import load_sample
from shopassist.query.models import QueryRequest
from shopassist.settings import Settings
from shopassist.settings.database import DatabaseConfig
from tests.support.access_matrix import TABLE, fill_in_path, list_routes
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import postgres_settings
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.servers import TestServer

PERSONAL = {
    "subject": "auth0|markedsubject",
    "subject's own part": "markedsubject",
    "session": "markedsession",
    "question": "markedquestion",
    "mail": "markedmail@mail.example",
    "name": "Markedname",
    "picture": "markedpicture",
    "idempotency key": "markedidempotency",
    "reason": "markedreason",
    "cursor": "markedcursor",
    "agent": "markedagent",
    "cookie": "markedcookie",
    "path": "markedpath",
    "parameter": "markedparameter",
}
SECRETS = {
    "secret key": "markedsecretkey-0123456789-0123456789",
    "model": "markedmodelkey",
    "proxy's token": "markedmetricstoken",
}
BAD_BODIES = [
    b'{"query": "markedquestion\\u0000"}',
    b'{"query": "\\ud800 markedquestion"}',
    b'{"query": ["markedquestion"], "markedparameter": 1e999}',
    b'{"query": "markedquestion"',
    b"markedquestion",
    json.dumps({"query": "markedquestion " * 5000}).encode(),
    json.dumps({"terms_accepted": "markedquestion", "amount": "markedquestion", "reason": 1}).encode(),
]


@dataclass
class Driven:
    """A server under marked requests, and all that came out of it."""

    server: TestServer
    provider: IdentityProvider
    answers: list[tuple[str, int, str]] = field(default_factory=list)

    def tokens(self) -> dict[str, str]:
        """Tokens of a user, an administrator, and one that does not hold."""
        claims = {"email": PERSONAL["mail"], "name": PERSONAL["name"], "picture": PERSONAL["picture"]}
        user = self.provider.token(PERSONAL["subject"], **claims)
        administrator = self.provider.token(PERSONAL["subject"], scope="shopassist:admin", **claims)
        return {"user": user, "administrator": administrator, "forged": f"{user[:-8]}AAAAAAAA"}

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        """Send one request and keep its response."""
        marked = {
            "User-Agent": PERSONAL["agent"],
            "Cookie": f"session={PERSONAL['cookie']}",
            "Idempotency-Key": PERSONAL["idempotency key"] + str(len(self.answers)),
            "Content-Type": "application/json",
            **headers,
        }
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        status, text = self.server.exchange(method, path, data, marked)
        self.answers.append((f"{method} {path}", status, text))

    def drive(self, tokens: dict[str, str]) -> None:
        """Every route, by everybody, well and badly."""
        callers = [{"Authorization": f"Bearer {token}"} for token in tokens.values()]
        callers += [{"X-Session-ID": PERSONAL["session"]}, {"X-Session-ID": PERSONAL["subject"]}, {}]
        for (method, path), row in TABLE.items():
            parameters = {name: quote(PERSONAL["subject"]) for name in row.parameters}
            link = f"{fill_in_path(path, parameters)}?cursor={PERSONAL['cursor']}&x={PERSONAL['parameter']}"
            for headers in callers:
                self.ask(method, link, row.body, **headers)
                if method in {"POST", "PUT"}:
                    for bad in BAD_BODIES:
                        self.ask(method, link, bad, **headers)
        for headers in callers:
            for word in ("", "fail", "crash"):
                self.ask(
                    "POST", "/api/query", {"query": f"{word} {PERSONAL['question']} {PERSONAL['mail']}"}, **headers
                )
            self.ask("GET", f"/{PERSONAL['path']}", **headers)
        self.ask(
            "POST",
            f"/api/admin/credits/{quote(PERSONAL['subject'])}/adjust",
            {"amount": -10_000, "reason": PERSONAL["reason"]},
            **callers[1],
        )


def found(text: str, marks: dict[str, str]) -> set[str]:
    """Which marks are in a text, however they are written there."""
    lower = text.lower()
    return {name for name, mark in marks.items() if mark.lower() in lower or quote(mark, safe="").lower() in lower}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the server writes."""
    path = Path(tempfile.mkdtemp(prefix="shopassist-marks-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """Start a PostgreSQL that tests may stop."""
    with run_postgres() as postgres:
        yield postgres


async def rows_of(url: str, table: str) -> str:
    """All of a table, as text."""
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.fetchval("SELECT format('SELECT t::text FROM %I t', $1::text)", table)
        return "\n".join(row[0] for row in await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.mark.timeout(300)
def test_what_is_marked_is_found_nowhere(
    folder: Path, database: PostgresServer, running_provider: IdentityProvider
) -> None:
    """With the database there and away, at the log level `debug` and with statements echoed."""
    password = SecretStr(database.url).get_secret_value().partition("@")[0].rpartition(":")[2]
    server = TestServer(
        folder,
        database.url,
        LOG_LEVEL="debug",
        DB_ECHO_SQL="true",
        OIDC_ISSUER=running_provider.issuer,
        OIDC_AUDIENCE=AUDIENCE,
        SECRET_KEY=SECRETS["secret key"],
        GEMINI_API_KEY=SECRETS["model"],
        RATE_LIMIT_QUESTIONS_PER_MINUTE="100000",
        RATE_LIMIT_READS_PER_MINUTE="100000",
    ).wait_until_ready(90)
    driven = Driven(server, running_provider)
    tokens = driven.tokens()
    marks = {**PERSONAL, **SECRETS, "password": password}
    marks |= {f"{name} token": token.rpartition(".")[2][:40] for name, token in tokens.items()}
    try:
        driven.drive(tokens)
        cached = asyncio.run(rows_of(database.url, "query_cache"))
        described = server.exchange("GET", "/openapi.json", None, {})[1]
        figures = server.exchange("GET", "/metrics", None, {})[1]
        database.stop()
        driven.drive(tokens)
    finally:
        server.stop()
        database.start()
    log = server.log.read_text() + "".join(file.read_text() for file in database.logs())
    statuses = {status for _, status, _ in driven.answers}
    assert {200, 401, 403, 404, 409, 422, 500, 503} <= statuses
    assert "unexpected_error" in log
    assert "SELECT" in log
    assert cached
    assert found(log, marks) == set()
    assert found(cached, marks) == set()
    assert found(described, marks) == set()
    assert found(figures, marks) == set()
    for request, status, text in driven.answers:
        shown = found(text, marks if status >= 400 else {**SECRETS, "password": password})
        assert not shown, (request, status, shown)


async def test_an_answer_that_is_kept_holds_nothing_of_who_asked(database_url: str) -> None:
    """The real assistant's: names, addresses and numbers that stood in a question are not in its cache entry."""
    container = Container(settings=postgres_settings(database_url))
    await load_sample(container.unit_of_work())
    queries = container.query_service()
    answered = 0
    for words in ("for Zebulon", "I am Zebulon", "write to zebulon@mail.example", "call 9876543210", "12 Markedstreet"):
        question = QueryRequest(query=f"best 5G phone under 12000 {words}")
        answered += bool((await queries.answer("guest", is_guest=True, request=question)).response.products)
    await container.shutdown()
    kept = await rows_of(database_url, "query_cache")
    assert answered
    assert "phone" in kept.lower()
    personal = ("zebulon", "9876543210", "markedstreet", "guest")
    assert found(kept, {mark: mark for mark in personal}) == set()


def test_the_routes_that_are_driven_are_all(app: FastAPI) -> None:
    """So that what is said above holds for new ones."""
    assert set(list_routes(app)) <= set(TABLE)


def test_representations_show_no_secret() -> None:
    """Neither of settings, nor of the container and the app that are made of them."""
    config = DatabaseConfig(database_url=SecretStr("postgresql://u:" + SECRETS["model"] + "@127.0.0.1/d"))
    container = Container(settings=Settings(database=config))
    manager = container.database_manager()
    shown = f"{container.settings()!r} {manager!r} {manager.engine!r} {manager.engine.url!r} {manager.__dict__!r}"
    assert found(shown, SECRETS) == set()
