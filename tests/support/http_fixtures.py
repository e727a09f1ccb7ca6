"""Fixtures: an identity provider, and the app over either storage with a scripted assistant."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI

from containers import Container
from shopassist.app import create_app, lifespan
from shopassist.db import migrate
from shopassist.db.dsn import normalise_dsn
from shopassist.query.models import Answer, ConversationContext, Recommendation
from shopassist.settings import IdentitySettings, Settings, Storage, StorageSettings
from tests.support.databases import PostgresServer, run_postgres
from tests.support.helpers import postgres_settings

AUDIENCE = "https://api.shopassist.example"


class IdentityProvider:
    """An OpenID Connect issuer that serves its keys over HTTP and counts the requests."""

    def __init__(self) -> None:
        """Listen on a free port of the loopback interface."""
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.curve_key = ec.generate_private_key(ec.SECP256R1())
        self.more_keys: list[dict[str, Any]] = []
        self.requests = 0
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.requests += 1
                body = json.dumps(provider.jwks()).encode()
                self.send_response(200 if self.path == "/.well-known/jwks.json" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def jwks(self) -> dict[str, Any]:
        """Return the document with its public key."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        curve = jwt.algorithms.ECAlgorithm.to_jwk(self.curve_key.public_key(), as_dict=True)
        rsa_key = {**public, "kid": "k1", "alg": "RS256", "use": "sig"}
        return {"keys": [rsa_key, {**curve, "kid": "k2", "use": "sig"}, *self.more_keys]}

    def token(
        self, subject: str = "auth0|123", key: Any = None, headers: Any = None, algorithm: str = "RS256", **claims: Any
    ) -> str:
        """Sign a token; a claim given as None is left out."""
        now = datetime.now(UTC)
        standard = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + timedelta(hours=1),
            **claims,
        }
        present = {name: value for name, value in standard.items() if value is not None}
        header = {name: value for name, value in {"kid": "k1", **(headers or {})}.items() if value is not None}
        return jwt.encode(present, key or self.key, algorithm=algorithm, headers=header)


class TestAssistant:
    """Returns or raises what the test sets, and records the questions."""

    __test__ = False

    def __init__(self) -> None:
        """Recommend one phone."""
        self.outcome: Answer | Exception = Answer(
            products=[
                Recommendation(
                    title="Phone",
                    price=10999,
                    currency="INR",
                    features=["5G"],
                    pros=["cheap"],
                    cons=["heavy"],
                    link="https://www.amazon.in/s?k=phone",
                )
            ],
            recommendations_summary="One phone fits.",
        )
        self.asked: list[tuple[str, ConversationContext]] = []

    async def answer(self, query: str, context: ConversationContext) -> Answer:
        """Answer."""
        self.asked.append((query, context))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(scope="session")
def running_provider() -> Iterator[IdentityProvider]:
    """Start one for all tests, since generating its key takes a while."""
    provider = IdentityProvider()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture
def provider(running_provider: IdentityProvider) -> IdentityProvider:
    """Return the identity provider with its counter reset."""
    running_provider.requests = 0
    running_provider.more_keys = []
    return running_provider


@pytest.fixture(params=["memory", "postgres"])
def settings(request: pytest.FixtureRequest, provider: IdentityProvider) -> Settings:
    """Return settings of each storage that trust the test's issuer: tests with this fixture run on both."""
    identity = IdentitySettings(oidc_issuer=provider.issuer, oidc_audience=AUDIENCE)
    if request.param == "memory":
        return Settings(storage=StorageSettings(storage=Storage.MEMORY), identity=identity)
    return postgres_settings(request.getfixturevalue("database_url")).model_copy(update={"identity": identity})


@pytest.fixture
def assistant() -> TestAssistant:
    """Return the assistant of `app`."""
    return TestAssistant()


@pytest.fixture
def app(container: Container, assistant: TestAssistant) -> FastAPI:
    """Build the app over the container, with the test's assistant."""
    container.assistant.override(assistant)
    return create_app(container)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the running app."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture
def bearer(provider: IdentityProvider) -> Callable[..., dict[str, str]]:
    """Return the headers of a registered user."""

    def headers(subject: str = "auth0|123", **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {provider.token(subject, **claims)}"}

    return headers


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a migrated server that the tests of a module may stop and start."""
    with run_postgres() as database:
        asyncio.run(migrate.upgrade(normalise_dsn(database.url)))
        yield database


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """Return the server, running at the start and the end of each test."""
    yield postgres_server
    postgres_server.start()
