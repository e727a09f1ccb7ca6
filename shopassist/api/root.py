"""`GET /`: the page for people, a line of JSON for programs."""

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.responses import Response

from shopassist import __version__
from shopassist.api.accept import prefers

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


@router.get("/", response_model=Root)
async def read_root(accept: Annotated[str, Header()] = "") -> Response | Root:
    """What this is; HTML only to clients that prefer it."""
    if prefers(accept, "text/html"):
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY, "Vary": "Accept"})
    return Root()
