"""The table of every route of the API and which callers may use it.

`python -m tests.support.access_matrix` prints it and writes it into `docs/security.md`. Tests fail for a route of the
app
without a row here.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from containers import Container
from shopassist.app import create_app
from shopassist.settings import Settings, Storage, StorageSettings

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BEGIN, END = "<!-- matrix: written by `make matrix` -->\n", "<!-- end of matrix -->\n"
MOUNTED = "GET"
"""Example path of a file below a mounted path."""


class Identity(StrEnum):
    """Identity of a caller."""

    ANONYMOUS = "anonymous"
    GUEST_A = "guest A"
    GUEST_B = "guest B"
    USER_A = "user A"
    USER_B = "user B"
    ADMINISTRATOR = "admin"
    EXPIRED = "expired token"
    OTHER_AUDIENCE = "other audience"
    FORGED = "forged session"


GUESTS = {Identity.GUEST_A, Identity.GUEST_B}
USERS = {Identity.USER_A, Identity.USER_B}


class Who(StrEnum):
    """Callers that a route allows."""

    EVERYONE = "everyone"
    CALLERS = "guests and users"
    REGISTERED = "users"
    ADMINISTRATORS = "administrators"

    def refuses(self, identity: Identity) -> int | None:
        """Return the status that an identity is refused with, or None if it is allowed."""
        if self is Who.EVERYONE:
            return None
        if identity not in {*GUESTS, *USERS, Identity.ADMINISTRATOR}:
            return 401
        if identity in GUESTS and self is not Who.CALLERS:
            return 401
        return 403 if identity in USERS and self is Who.ADMINISTRATORS else None


@dataclass(frozen=True, slots=True)
class Row:
    """One route: allowed callers, possible statuses, and an example request."""

    who: Who
    answers: frozenset[int] = frozenset({200})
    body: Any = None
    parameters: dict[str, str] = field(default_factory=dict)
    of_others: bool = False
    """Whether allowed callers see other users' data."""


def row(who: Who, *answers: int, body: Any = None, of_others: bool = False, **parameters: str) -> Row:
    """Build a row; without `answers` allowed callers get 200."""
    return Row(who, frozenset(answers or {200}), body, parameters, of_others)


E, C, R, A = Who.EVERYONE, Who.CALLERS, Who.REGISTERED, Who.ADMINISTRATORS
CONSENT = {"terms_accepted": True, "marketing_consent": False}
ADJUSTMENT = {"amount": 1, "reason": "a matrix"}
NOTICE = {"purpose": "marketing", "locale": "en", "text": "We write to you."}

TABLE: dict[tuple[str, str], Row] = {
    ("GET", "/"): row(E),
    ("GET", "/health"): row(E),
    ("GET", "/health/ready"): row(E, 200, 503),
    ("GET", "/health/database"): row(E),
    ("GET", "/health/detailed"): row(E),
    ("GET", "/metrics"): row(E),
    ("GET", "/openapi.json"): row(E),
    ("GET", "/docs"): row(E),
    ("GET", "/docs/files"): row(E, 200, 404),
    ("GET", "/docs/oauth2-redirect"): row(E),
    ("GET", "/redoc"): row(E),
    ("GET", "/.well-known/gpc.json"): row(E),
    ("GET", "/api/notices"): row(E),
    ("GET", "/api/notices/{notice_id}"): row(E, 200, 404, notice_id="1"),
    ("POST", "/api/guest"): row(E, 200, 201),
    ("POST", "/api/query"): row(C, body={"query": "a phone"}),
    ("GET", "/api/user/credits"): row(C),
    ("GET", "/api/user/credits/status"): row(C),
    ("GET", "/api/credits/status"): row(C),
    ("GET", "/api/user/credits/transactions"): row(C),
    ("POST", "/api/consents"): row(C, body={"consents": [{"purpose": "marketing", "granted": False}]}),
    ("GET", "/api/consents"): row(C),
    ("GET", "/api/consents/history"): row(C),
    ("DELETE", "/api/consents/{purpose}"): row(C, 200, 404, purpose="marketing"),
    ("GET", "/api/user/me"): row(R),
    ("POST", "/api/consent"): row(R, 200, 400, body=CONSENT),
    ("POST", "/api/consent/"): row(R, 200, 400, body=CONSENT),
    ("GET", "/api/consent/me"): row(R, 200, 404),
    ("PUT", "/api/consent/me"): row(R, 200, 404, body={"marketing_consent": True}),
    ("POST", "/api/user/merge-guest"): row(R, 200, 404, 409, body={"session_id": "an-unused-session"}),
    ("GET", "/api/consent/admin/all"): row(A, of_others=True),
    ("POST", "/api/admin/credits/{user_id:path}/adjust"): row(
        A, 200, 404, body=ADJUSTMENT, of_others=True, user_id="auth0|victim"
    ),
    ("GET", "/api/admin/audit"): row(A, of_others=True),
    ("POST", "/api/admin/notices"): row(A, body=NOTICE),
    ("GET", "/api/admin/rollout"): row(A, 200, 409, of_others=True),
    ("PUT", "/api/admin/rollout"): row(A, 200, 409, body={"percent": 0}),
    ("POST", "/api/admin/rollout/back"): row(A, 200, 409),
    ("GET", "/api/user/export"): row(C),
    ("DELETE", "/api/user"): row(C, 200, 202, 404),
}


def list_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return method and path of every route."""
    found = []
    for route in iter_route_contexts(app.routes):
        assert route.path is not None
        methods = (route.methods or {MOUNTED}) - {"HEAD"}
        found += [(method, route.path) for method in sorted(methods)]
    return found


def fill_in_path(path: str, parameters: dict[str, str]) -> str:
    """Return a path with example values for its parameters."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: parameters[match[1]], path)


def render_table(routes: list[tuple[str, str]]) -> str:
    """Return the table in Markdown."""
    lines = [
        f"| route | {' | '.join(Identity)} |",
        f"| --- |{' --- |' * len(Identity)}",
        *(
            f"| `{method} {path}` | "
            + " | ".join(str(TABLE[method, path].who.refuses(identity) or "yes") for identity in Identity)
            + " |"
            for method, path in sorted(routes, key=lambda route: list(TABLE).index(route))
        ),
    ]
    return "\n".join(lines) + "\n"


def app_of_memory() -> FastAPI:
    """Return the app, for its routes."""
    return create_app(Container(settings=Settings(storage=StorageSettings(storage=Storage.MEMORY))))


def main() -> None:
    """Print the table and write it into the document."""
    table = render_table(list_routes(app_of_memory()))
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}{table}{END}{after}")
    print(table)  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
