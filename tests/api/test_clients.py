"""Requests as browsers, probes, scripts and proxies send them, to every route of a real server."""

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from shopassist.app import EXPOSED_HEADERS
from tests.support.access_matrix import MOUNTED, TABLE, Row, Who, app_of_memory, fill_in_path, list_routes
from tests.support.http_fixtures import AUDIENCE, IdentityProvider
from tests.support.servers import TestServer

ROUTES = list_routes(app_of_memory())
GETS = [path for method, path in ROUTES if method == "GET"]
WITH_BODY = [(method, path) for method, path in ROUTES if TABLE[method, path].body is not None]
PROBED = {"/health", "/health/ready", "/health/database", "/health/detailed", "/metrics"}
ORIGIN = {"Origin": "http://localhost:5173"}
GUEST = {"X-Session-ID": "g2wsht"}
NUMBERS = count()
NOT_FOR_SCRIPTS = {
    *("allow", "connection", "date", "etag", "server", "transfer-encoding", "vary", "www-authenticate"),
    *("content-security-policy", "permissions-policy", "referrer-policy", "x-content-type-options", "x-frame-options"),
}
SAFELISTED = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def server(running_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    """Start a server that answers to one host name."""
    server = TestServer(
        tmp_path_factory.mktemp("clients"),
        "",
        STORAGE="memory",
        ALLOWED_HOSTS="shop.example",
        OIDC_ISSUER=running_provider.issuer,
        OIDC_AUDIENCE=AUDIENCE,
    ).wait_until_ready()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server: TestServer) -> Iterator[httpx.Client]:
    """Return a client that keeps its connection."""
    limits = httpx.Limits(max_connections=1)
    address = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=address, headers={"Host": "shop.example", **ORIGIN}, limits=limits) as client:
        yield client


@pytest.fixture
def ask(client: httpx.Client, running_provider: IdentityProvider) -> Ask:
    """Return a function that calls a route as a new caller, with the body of its row unless another is given."""

    def call(method: str, path: str, final: str = "", **options: Any) -> httpx.Response:
        row = TABLE[method, path]
        headers = {**build_identity(row, running_provider), **options.pop("headers", {})}
        if not {"content", "json"} & options.keys():
            options["json"] = row.body
        return client.request(
            options.pop("sent_as", method), fill_in_path(path, row.parameters) + final, headers=headers, **options
        )

    return call


def build_identity(row: Row, provider: IdentityProvider) -> dict[str, str]:
    """Return the headers of a caller that the route lets in, and that was not seen before."""
    number = next(NUMBERS)
    if row.who is Who.EVERYONE:
        return {}
    if row.who is Who.CALLERS:
        return {"X-Session-ID": f"client-{number}"}
    return {"Authorization": f"Bearer {provider.token(f'auth0|client-{number}', scope='shopassist:admin')}"}


@pytest.mark.parametrize("path", GETS)
def test_head_is_answered_like_get(ask: Ask, client: httpx.Client, path: str) -> None:
    """The same status and headers, no body, and the connection can be used again."""
    get, head = ask("GET", path), ask("GET", path, sent_as="HEAD")
    changing = {"x-request-id", "date", "ratelimit", "transfer-encoding", "set-cookie"}
    changing |= {"content-length"} if path in {*PROBED, "/api/admin/audit"} else set()
    assert head.status_code == get.status_code
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }
    assert head.content == b""
    assert client.get("/health").json() == {"status": "healthy"}


def test_head_is_refused_where_get_is(client: httpx.Client) -> None:
    """And offered where it is answered, to pages of other origins too."""
    assert client.head("/api/user/me").status_code == 401
    assert client.head("/nowhere").status_code == 404
    refused = client.head("/api/query")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    for path in ("/health", "/openapi.json", "/api/user/export"):
        answer = client.post(path)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD")
    wanted = {"Access-Control-Request-Method": "HEAD", "Access-Control-Request-Headers": "x-session-id"}
    assert client.options("/api/user/credits", headers=wanted).status_code == 200


@pytest.mark.parametrize("path", sorted({path for _, path in ROUTES}))
def test_a_refused_method_is_told_all_others(client: httpx.Client, path: str) -> None:
    """Those of every route of the path; each of them is another answer than 405."""
    parameters = next(row.parameters for (_, known), row in TABLE.items() if known == path)
    link = fill_in_path(path, parameters) + ("/swagger-ui.css" if path == "/docs/files" else "")
    answer = client.request("PATCH", link)
    allowed = answer.headers["Allow"].split(", ")
    assert answer.status_code == 405
    assert {"GET" if method == MOUNTED else method for method, known in ROUTES if known == path} <= set(allowed)
    assert ("HEAD" in allowed) == ("GET" in allowed)
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        assert (client.request(method, link).status_code != 405) == (method in allowed), method


def test_requests_by_head_are_counted_as_such(client: httpx.Client) -> None:
    """With the route, as others are."""
    client.head("/api/notices")
    counted = 'shopassist_http_request_duration_seconds_count{method="HEAD",route="/api/notices",status="2xx"}'
    assert counted in client.get("/metrics").text


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "[fd00::1]:8000", "localhost", "", "app"])
def test_only_probes_may_use_any_host(client: httpx.Client, host: str) -> None:
    """Load balancers, kubelets and Prometheus know the address alone; all other routes are closed to other names."""
    for method, path in ROUTES:
        link = fill_in_path(path, TABLE[method, path].parameters)
        answer = client.request(method, link, headers={"Host": host})
        is_refused = answer.status_code == 400 and answer.json()["error_type"] == "host_not_allowed"
        assert is_refused != (path in PROBED), (path, answer.text)


@pytest.mark.parametrize("path", ["/healthy", "/metrics/more", "/health/../api/notices", "/api/health/"])
def test_paths_that_resemble_a_probe_are_none(client: httpx.Client, path: str) -> None:
    """They may not be a way to other routes."""
    assert client.get(path, headers={"Host": "10.1.2.3"}).status_code in {400, 404}


JSON_TYPES = (
    *("application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"),
    *("application/vnd.api+json", "application/merge-patch+json"),
)
OTHER_TYPES = (
    *(None, "", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("application/xml", "text/json", "json", "application/jsonp", "application/octet-stream", "*/*"),
)


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_a_body_must_be_called_json(ask: Ask, method: str, path: str) -> None:
    """415 that says how; each spelling of JSON is accepted."""
    row = TABLE[method, path]
    for known in JSON_TYPES:
        answer = ask(method, path, content=json.dumps(row.body), headers={"Content-Type": known})
        assert answer.status_code in row.answers, (known, answer.text)
    for other in OTHER_TYPES:
        headers = {} if other is None else {"Content-Type": other}
        answer = ask(method, path, content=json.dumps(row.body).encode(), headers=headers)
        assert (answer.status_code, answer.json()["error_type"]) == (415, "unsupported_media_type"), other
        assert "Content-Type: application/json" in answer.json()["detail"]


@pytest.mark.parametrize("content_type", OTHER_TYPES)
def test_a_request_without_a_body_needs_no_type(ask: Ask, content_type: str | None) -> None:
    """Clients send some type by default."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    for method, path in ROUTES:
        if method != "GET" and TABLE[method, path].body is None:
            assert ask(method, path, content=b"", headers=headers).status_code in TABLE[method, path].answers, path
    missing = ask("POST", "/api/query", content=b"", headers=headers)
    assert (missing.status_code, missing.json()["errors"][0]["loc"]) == (422, ["body"])


def test_an_unexpected_error_is_a_whole_answer(client: httpx.Client, server: TestServer) -> None:
    """With every header, and the id by which its line in the log is found."""
    answer = client.post(
        "/api/query", json={"query": "crash a secret phone"}, headers={**GUEST, "X-Request-ID": "crash-1"}
    )
    assert answer.status_code == 500
    assert answer.json() == {"detail": "Something went wrong on our side.", "error_type": "internal_error"}
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert answer.headers["X-Request-ID"] == "crash-1"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    events: list[dict[str, Any]] = []
    deadline = time.monotonic() + 10
    while not any(event["event"] == "request" for event in events) and time.monotonic() < deadline:
        time.sleep(0.02)  # the request is logged after its response
        log = server.log.read_text()
        events = [json.loads(line) for line in log.splitlines() if '"crash-1"' in line and line.endswith("}")]
    assert [event["error"] for event in events if event["event"] == "unexpected_error"] == ["RuntimeError"]
    assert [event["status"] for event in events if event["event"] == "request"] == [500]
    assert "secret" not in log


def test_a_connection_outlives_an_unexpected_error(server: TestServer) -> None:
    """A proxy sends the next request over it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    headers = {"Host": "shop.example", "Content-Type": "application/json", **GUEST}
    connection.request("POST", "/api/query", '{"query": "crash"}', headers)
    response = connection.getresponse()
    assert (response.status, response.getheader("Connection")) == (500, None)
    response.read()
    time.sleep(0.1)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


def is_personal(method: str, path: str) -> bool:
    """Return whether an answer is about a caller, or gives away a session."""
    return TABLE[method, path].who is not Who.EVERYONE or path == "/api/guest"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_personal_answers_are_not_stored(ask: Ask, method: str, path: str) -> None:
    """Neither are refusals; what is the same for everybody may be stored."""
    unknown = {"Authorization": "Bearer x"} if is_personal(method, path) else {}
    answers = [ask(method, path), ask(method, path, headers=unknown), ask(method, path, "?limit=0&cursor=!")]
    for answer in answers:
        stored = answer.headers.get_list("Cache-Control")
        assert stored == (["no-store"] if is_personal(method, path) or path == "/metrics" else []), answer.text


def test_scripts_may_read_every_header_that_is_for_them(ask: Ask) -> None:
    """Pages of other origins see only what is exposed."""
    answers = [ask(method, path) for method, path in ROUTES]
    answers += [ask("GET", "/api/user/credits/transactions", headers={"Accept": "text/csv"})]
    sent = {name for answer in answers for name in answer.headers if not name.startswith("access-control-")}
    assert "content-disposition" in sent
    assert sent - NOT_FOR_SCRIPTS - SAFELISTED <= {name.lower() for name in EXPOSED_HEADERS}
    assert answers[0].headers["Access-Control-Expose-Headers"].split(", ") == EXPOSED_HEADERS


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if not route[1].endswith(("/", "files"))])
def test_a_final_slash_is_redirected(ask: Ask, method: str, path: str) -> None:
    """To the route itself, with method, query and body; the consent record is there with and without."""
    answer = ask(method, path, "/?limit=2&x=%7C")
    if path == "/api/consent":
        assert answer.status_code == 200
        return
    assert answer.status_code == 307
    assert answer.next_request is not None
    assert str(answer.next_request.url) == str(answer.url).replace("/?", "?")
    assert answer.next_request.method == method
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
    assert ask(method, path, "/", follow_redirects=True).status_code in TABLE[method, path].answers


@pytest.mark.parametrize("path", ["/nowhere/", "/api/", "//evil.example/", "/api/notices//", "/%5Cevil.example/"])
def test_other_slashes_are_not_found(client: httpx.Client, path: str) -> None:
    """Nothing leads to another server."""
    answer = client.get(f"{client.base_url}".rstrip("/") + path)
    assert (answer.status_code, answer.json()["error_type"]) == (404, "not_found")
    assert "Location" not in answer.headers


class WithoutPrefix(httpx.BaseTransport):
    """A proxy that serves the server below `/shop`, and removes this from the path."""

    def __init__(self, port: int) -> None:
        """Pass requests on to `port`."""
        self.port = port
        self.inner = httpx.HTTPTransport()

    def close(self) -> None:
        """Close the connections."""
        self.inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on; any other path is not found."""
        path = request.url.raw_path.removeprefix(b"/shop")
        if path == request.url.raw_path:
            return httpx.Response(404)
        request.url = request.url.copy_with(host="127.0.0.1", port=self.port, raw_path=path)
        return self.inner.handle_request(request)


@pytest.fixture
def behind_prefix(server: TestServer) -> Iterator[httpx.Client]:
    """Return a client of the server behind that proxy."""
    transport = WithoutPrefix(server.port)
    with httpx.Client(transport=transport, base_url="http://shop.example/shop/", headers=GUEST) as client:
        yield client


def test_documents_work_behind_a_prefix(behind_prefix: httpx.Client) -> None:
    """The page, the description with all that it loads, and the addresses of its operations."""
    at = httpx.URL("http://shop.example/shop/docs")
    shown = behind_prefix.get(at)
    loaded = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)["']""", shown.text)
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("data:") or behind_prefix.get(at.join(address)).status_code == 200, address
    document = behind_prefix.get(at.join("openapi.json"))
    base = at.join("openapi.json").join(document.json()["servers"][0]["url"])
    assert str(base) == "http://shop.example/shop/"
    page = behind_prefix.get("", headers={"Accept": "text/html"})
    called = re.findall(r"""\b(?:fetch|call)\('([^']+)'""", page.text)
    assert "api/query" in called
    for address in [*called, *re.findall(r'href="(?!data:)([^"]+)"', page.text)]:
        assert behind_prefix.get(base.join(address)).status_code in {200, 405}, address


def test_links_work_behind_a_prefix(behind_prefix: httpx.Client) -> None:
    """The next page, and a redirect."""
    behind_prefix.post("api/query", json={"query": "a phone behind a prefix"})
    at = httpx.URL("http://shop.example/shop/api/user/credits/transactions?limit=1")
    page = behind_prefix.get(at)
    following = behind_prefix.get(at.join(page.links["next"]["url"]))
    assert [len(rows) for rows in (page.json(), following.json())] == [1, 1]
    assert page.json() != following.json()
    redirected = behind_prefix.get("api/user/credits/?x=1")
    again = at.join("/shop/api/user/credits/").join(redirected.headers["Location"])
    assert behind_prefix.get(again).json()["user_id"] == "g2wsht"
