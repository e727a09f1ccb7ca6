"""The page at `/` and the API documentation at `/docs`."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from shopassist import __version__
from shopassist.api.headers import is_preferred
from shopassist.api.middleware import DEFAULT_CSP

router = APIRouter(tags=["status"])

CSP_DATA_IMAGES = "img-src 'self' data:"
CSP_OWN_SERVER = "connect-src 'self'"


def build_csp(page: str, *more: str) -> str:
    """Return the policy that allows the inline scripts of `page` and the directives `more`."""
    return "; ".join([DEFAULT_CSP, f"script-src {build_csp_hashes(page, 'script')}", *more])


def build_csp_hashes(page: str, element: str) -> str:
    """Return the hashes of all inline elements of that name, as a policy lists them."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(c.encode()).digest()).decode()}'" for c in contents)


PAGE = (files("shopassist") / "web" / "index.html").read_text(encoding="utf-8")
PAGE_POLICY = build_csp(PAGE, f"style-src {build_csp_hashes(PAGE, 'style')}", CSP_OWN_SERVER, CSP_DATA_IMAGES)


class Root(BaseModel):
    """The name, state and version of the API."""

    message: str = "AI Shopping Assistant API"
    status: str = "healthy"
    version: str = __version__


@router.get("/", response_model=Root)
async def read_root(accept: Annotated[str, Header()] = "") -> Response | Root:
    """Return the name and version of the API; HTML to clients that prefer it."""
    if is_preferred(accept, "text/html"):
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": PAGE_POLICY, "Vary": "Accept"})
    return Root()


SWAGGER_FILES = Path(str(files("fastapi_offline"))) / "static"
SWAGGER_STYLES = "style-src 'self' 'unsafe-inline'"
"""Swagger UI adds inline styles; its page shows no text of users."""

EMPTY_ICON = "data:,"


def add_docs(app: FastAPI) -> None:
    """Serve the API documentation of `app` at `/docs`. Its links are relative, for proxies that remove a prefix."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url=str(app.openapi_url).lstrip("/"),
            title=f"{app.title} - API",
            swagger_js_url="docs/files/swagger-ui-bundle.js",
            swagger_css_url="docs/files/swagger-ui.css",
            swagger_favicon_url=EMPTY_ICON,
        ).body
    ).decode()
    policy = build_csp(page, SWAGGER_STYLES, CSP_OWN_SERVER, CSP_DATA_IMAGES).replace("script-src", "script-src 'self'")
    headers = {"Content-Security-Policy": policy}

    @app.get("/docs", include_in_schema=False)
    async def read_docs() -> Response:
        return HTMLResponse(page, headers=headers)

    app.mount("/docs/files", StaticFiles(directory=SWAGGER_FILES))
