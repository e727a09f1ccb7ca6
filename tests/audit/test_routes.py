"""`GET /api/admin/audit`, and every route of administrators writes an audit entry."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from containers import Container
from shopassist.api.dependencies import require_administrator
from shopassist.errors import NoRolloutError

Bearer = Callable[..., dict[str, str]]
USER = "auth0|123"
BODIES: dict[str, Any] = {
    "/api/admin/credits/{user_id:path}/adjust": {"amount": 5, "reason": "a gift"},
    "/api/admin/rollout": {"percent": 10},
    "/api/admin/notices": {"purpose": "terms", "locale": "en", "text": "Be good."},
}
"""What each route that takes a body is sent; a new one is to be added here."""
NO_ROLLOUT = {"detail": NoRolloutError.detail, "error_type": NoRolloutError.code}


def calls(dependant: Dependant) -> Iterator[Any]:
    """Yield everything that an endpoint depends on."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls(dependency)


def routes(app: FastAPI) -> list[RouteContext]:
    """Return every route of administrators, from the route table."""
    apis = [route for route in iter_route_contexts(app.routes) if isinstance(route.original_route, APIRoute)]
    found = [route for route in apis if require_administrator in calls(route.dependant)]
    assert len(found) >= 4
    return found


def path_of(route: RouteContext) -> str:
    """Return a path that the route serves."""
    return str(route.path).replace("{user_id:path}", "auth0%7C123")


@pytest.fixture
def admin(bearer: Bearer) -> dict[str, str]:
    """Return headers of an administrator."""
    return bearer("auth0|admin", scope="openid shopassist:admin")


async def test_every_administrative_route_is_recorded(
    client: httpx.AsyncClient, app: FastAPI, container: Container, admin: dict[str, str]
) -> None:
    """Each route adds one entry with its actor and request id, if there is something to act on."""
    await container.credit_service().get_user_credits(USER)
    for route in routes(app):
        for method in route.methods or ():
            request_id = f"{method}-{route.name}"
            answer = await client.request(
                method, path_of(route), headers={**admin, "X-Request-ID": request_id}, json=BODIES.get(str(route.path))
            )
            if answer.json() == NO_ROLLOUT:
                continue
            assert answer.status_code == 200, (method, route.path, answer.text)
            acts = (await client.get("/api/admin/audit", headers=admin, params={"actor": "auth0|admin"})).json()
            own = [act for act in acts if act["request_id"] == request_id]
            assert len(own) == 1, (method, route.path)
            assert (own[0]["actor"], bool(own[0]["act"])) == ("auth0|admin", True)


async def test_entries_have_reason_and_target(
    client: httpx.AsyncClient, container: Container, admin: dict[str, str], bearer: Bearer
) -> None:
    """Changes and reads are recorded with their reason; the log can be filtered by target."""
    await container.credit_service().get_user_credits(USER)
    body = {"amount": 5, "reason": "a gift"}
    await client.post("/api/admin/credits/auth0%7C123/adjust", headers=admin, json=body)
    await client.get("/api/consent/admin/all", headers=admin, params={"reason": "yearly review"})
    looked = {"reason": "complaint 7", "target": USER}
    second = bearer("auth0|second", scope="shopassist:admin")
    [gift] = (await client.get("/api/admin/audit", headers=second, params=looked)).json()
    assert {**gift, "id": 0, "request_id": ""} == {
        "id": 0,
        "timestamp": "2026-01-01T12:00:00Z",
        "actor": "auth0|admin",
        "act": "adjust_credits",
        "target": USER,
        "reason": "a gift",
        "request_id": "",
    }
    acts = (await client.get("/api/admin/audit", headers=admin)).json()
    assert [(act["actor"], act["act"], act["target"], act["reason"]) for act in acts] == [
        ("auth0|second", "read_audit", USER, "complaint 7"),
        ("auth0|admin", "read_consents", None, "yearly review"),
        ("auth0|admin", "adjust_credits", USER, "a gift"),
    ]


async def test_pages(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """The `Link` header leads through all entries, although each read adds a newer one."""
    for _ in range(5):
        await client.get("/api/consent/admin/all", headers=admin)
    url, seen = "/api/admin/audit?limit=2", []
    while url:
        page = await client.get(url, headers=admin)
        seen += [act["act"] for act in page.json()]
        url = str(page.url.join(page.links["next"]["url"])) if page.links else ""
    assert seen == ["read_consents"] * 5


async def test_only_administrators(
    client: httpx.AsyncClient, app: FastAPI, admin: dict[str, str], bearer: Bearer
) -> None:
    """401 without identity and for guests, 403 for other users; none of it is recorded."""
    for route in routes(app):
        for method in route.methods or ():
            path = path_of(route)
            body = BODIES.get(str(route.path))
            for headers, status in (({}, 401), ({"X-Session-ID": "g"}, 401), (bearer(), 403)):
                assert (await client.request(method, path, headers=headers, json=body)).status_code == status, path
    assert (await client.get("/api/admin/audit", headers=admin)).json() == []


async def test_publishing_a_notice(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """A published notice is public; another text for the same version is refused."""
    body = {"purpose": "terms", "locale": "en", "text": "Be good."}
    first = await client.post("/api/admin/notices", headers=admin, json=body)
    assert (first.status_code, first.json()["version"]) == (200, 1)
    assert (await client.post("/api/admin/notices", headers=admin, json=body)).json() == first.json()
    other = await client.post("/api/admin/notices", headers=admin, json={**body, "text": "Be bad.", "version": 1})
    assert (other.status_code, other.json()["error_type"]) == (409, "notice_exists")
    assert (await client.get("/api/notices")).json() == [first.json()]


async def test_what_is_not_valid_is_422(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    """Invalid requests are not recorded."""
    for query in ("limit=0", "limit=501", "cursor=!", "target=", "target=%00", "reason=", f"actor={'x' * 256}"):
        assert (await client.get(f"/api/admin/audit?{query}", headers=admin)).status_code == 422, query
    assert (await client.get("/api/admin/audit", headers=admin)).json() == []
