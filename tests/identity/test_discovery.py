"""Where keys are fetched from: any OpenID Connect issuer, over nothing but HTTPS."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from shopassist.identity.tokens import MAX_DOCUMENT_BYTES, fetch_jwks, is_trusted_url
from shopassist.settings import IdentitySettings, Settings

Site = Callable[[dict[str, Any]], str]
KEYS = {"keys": [{"kty": "EC", "kid": "a"}]}


@pytest.fixture
def site() -> Iterator[Site]:
    """Serve documents by path and yield the issuer's name, which replaces `HERE` in them."""
    servers = []

    def serve(documents: dict[str, Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                here = f"http://{self.headers['Host']}"
                found = documents.get(self.path)
                body = found if isinstance(found, bytes) else json.dumps(found).replace("HERE", here).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


DISCOVERED = {"issuer": "HERE/realms/shop", "jwks_uri": "HERE/certs"}


@pytest.mark.parametrize(
    "documents",
    [
        {"/realms/shop/.well-known/jwks.json": KEYS},
        {"/realms/shop/.well-known/openid-configuration": DISCOVERED, "/certs": KEYS},
        {
            "/realms/shop/.well-known/jwks.json": b"<html>a page for everything</html>",
            "/realms/shop/.well-known/openid-configuration": DISCOVERED,
            "/certs": KEYS,
        },
    ],
    ids=["Auth0's place", "discovery", "a page where Auth0's place would be"],
)
async def test_keys_are_found(site: Site, documents: dict[str, Any]) -> None:
    """Where Auth0 has them, else where the issuer's discovery document says."""
    assert await fetch_jwks(f"{site(documents)}/realms/shop/") == KEYS


@pytest.mark.parametrize(
    "discovery",
    [
        {**DISCOVERED, "issuer": "https://evil.example/"},
        {"jwks_uri": "HERE/certs"},
        {**DISCOVERED, "jwks_uri": "http://keys.example/certs"},
        {**DISCOVERED, "jwks_uri": "file:///etc/passwd"},
        {"issuer": "HERE/realms/shop"},
        [],
    ],
    ids=str,
)
async def test_a_document_that_cannot_be_believed_is_not(site: Site, discovery: Any) -> None:
    """Another issuer's, and keys over anything but HTTPS."""
    documents = {"/realms/shop/.well-known/openid-configuration": discovery, "/certs": KEYS}
    with pytest.raises(ValueError, match=r"issuer|HTTPS"):
        await fetch_jwks(f"{site(documents)}/realms/shop/")


async def test_a_document_without_end_is_not_read_whole(site: Site) -> None:
    """It would fill the memory."""
    with pytest.raises(ValueError, match="too large"):
        await fetch_jwks(f"{site({'/.well-known/jwks.json': b' ' * (MAX_DOCUMENT_BYTES + 1)})}/")


async def test_an_issuer_that_is_away_is_an_error_of_http() -> None:
    """Which the keeper of keys takes for what it is."""
    with pytest.raises(httpx.HTTPError):
        await fetch_jwks("http://127.0.0.1:1/")


def test_only_https_and_this_machine_are_trusted() -> None:
    """Names that look like this machine's are not."""
    assert all(map(is_trusted_url, ["https://a.example/", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"]))
    assert not any(
        map(is_trusted_url, ["http://a.example/", "http://localhost.evil.example/", "ftp://localhost/", "", "http://["])
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"oidc_issuer": "http://keys.example"}, "https"),
        ({"oidc_issuer": "keys.example", "oidc_audience": "a"}, "https"),
        ({"oidc_issuer": "https://keys.example"}, "OIDC_AUDIENCE"),
        ({"domain": "keys.example"}, "OIDC_AUDIENCE"),
    ],
)
def test_an_issuer_that_cannot_be_believed_is_refused_at_start(given: dict[str, str], said: str) -> None:
    """Rather than every token later."""
    with pytest.raises(ValueError, match=said):
        Settings(identity=IdentitySettings.model_validate(given))


def test_an_issuer_spells_its_name_as_it_likes() -> None:
    """Keycloak, Okta and Google write no slash at the end, Auth0 does."""
    assert IdentitySettings(oidc_issuer="https://a.example/x").issuer_names == (
        "https://a.example/x/",
        "https://a.example/x",
    )
    assert IdentitySettings(domain="a.example").issuer_names == ("https://a.example/",)
