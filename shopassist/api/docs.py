"""`/docs`: the API's description for people, with everything it needs from this server."""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from shopassist.api.content_policy import DATA_IMAGES, OWN_SERVER, policy_of

FILES = Path(str(files("fastapi_offline"))) / "static"
STYLES = "style-src 'self' 'unsafe-inline'"
"""Swagger UI writes styles into its page; no text of anybody's is on it."""

ICON = "data:,"


def add_to(app: FastAPI) -> None:
    """Serve the description of `app`."""
    page = bytes(
        get_swagger_ui_html(
            openapi_url=str(app.openapi_url),
            title=f"{app.title} - API",
            swagger_js_url="/docs/files/swagger-ui-bundle.js",
            swagger_css_url="/docs/files/swagger-ui.css",
            swagger_favicon_url=ICON,
        ).body
    ).decode()
    policy = policy_of(page, STYLES, OWN_SERVER, DATA_IMAGES).replace("script-src", "script-src 'self'")
    headers = {"Content-Security-Policy": policy}

    @app.get("/docs", include_in_schema=False)
    async def read_docs() -> Response:
        return HTMLResponse(page, headers=headers)

    app.mount("/docs/files", StaticFiles(directory=FILES))
