"""`GET /`: the page for people, a line of JSON for programs."""

from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.responses import Response

from shopassist import __version__
from shopassist.api.accept import prefers
from shopassist.api.content_policy import DATA_IMAGES, OWN_SERVER, hashes, policy_of

router = APIRouter(tags=["status"])

PAGE = (files("shopassist") / "web" / "index.html").read_text(encoding="utf-8")
PAGE_POLICY = policy_of(PAGE, f"style-src {hashes(PAGE, 'style')}", OWN_SERVER, DATA_IMAGES)


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
