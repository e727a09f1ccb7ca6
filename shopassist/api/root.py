"""`GET /`: the page for people, a line of JSON for programs."""

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.responses import Response

from shopassist import __version__

router = APIRouter(tags=["status"])

PAGE = (files("shopassist") / "web" / "index.html").read_text(encoding="utf-8")
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)


class Root(BaseModel):
    """What this is."""

    message: str = "AI Shopping Assistant API"
    status: str = "healthy"
    version: str = __version__


def prefers_html(accept: str) -> bool:
    """Whether a client with this `Accept` header would rather have HTML than JSON (RFC 9110, section 12.5.1)."""
    weights = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media_type in weights:
            weights[media_type] = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
    return weights["text/html"] > weights["application/json"]


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


@router.get("/", response_model=Root)
async def read_root(accept: Annotated[str, Header()] = "") -> Response | Root:
    """What this is; HTML only to clients that prefer it."""
    if prefers_html(accept):
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY, "Vary": "Accept"})
    return Root()
