"""Errors as clients see them: JSON with `detail` and a stable `error_type`, and never an exception text."""

import json
import traceback
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from shopassist.errors import (
    AuthenticationError,
    CreditsExhaustedError,
    PermissionDeniedError,
    ShopAssistError,
    StorageUnavailableError,
)

logger = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = "5"
HTTP_ERROR_TYPES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request", 413: "body_too_large"}


class ErrorBody(BaseModel):
    """An error."""

    detail: str
    error_type: str


class CreditsExhaustedBody(ErrorBody):
    """No credits left."""

    available_credits: int
    max_credits: int
    is_guest: bool
    error_description: str


class ValidationProblem(BaseModel):
    """One thing that is wrong with a request."""

    loc: list[str | int]
    msg: str
    type: str


class ValidationErrorBody(ErrorBody):
    """A request that is not valid: by its schema, which `errors` tells of, or by a rule of ours, without them."""

    errors: list[ValidationProblem] = []


BODIES: dict[type[ShopAssistError], type[BaseModel]] = {CreditsExhaustedError: CreditsExhaustedBody}


def documented(*errors: type[ShopAssistError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the errors that a route may answer with; every route may find the database away."""
    entries: dict[int | str, dict[str, Any]] = {422: {"model": ValidationErrorBody, "description": "Not valid."}}
    every: list[type[ShopAssistError]] = [*errors, StorageUnavailableError]
    for error in every:
        entries[error.status] = {"model": BODIES.get(error, ErrorBody), "description": error.detail}
    return entries


IDENTITY_ERRORS = (AuthenticationError,)
ADMIN_ERRORS = (AuthenticationError, PermissionDeniedError)


def body(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """A JSON response that any text can be put into: what is not ASCII is escaped, lone surrogates too."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


async def domain_error(_: Request, error: Exception) -> Response:
    """Render an error of the family."""
    if not isinstance(error, ShopAssistError):
        raise TypeError
    headers = {}
    if error.status == AuthenticationError.status:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retryable:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
        # Not a line for each request while the database is away: that is said once, when it goes.
        logger.debug("request_refused", error_type=error.code)
    return body(error.status, {"detail": error.detail, "error_type": error.code, **error.extra}, headers)


async def validation_error(_: Request, error: Exception) -> Response:
    """Say what is wrong with a request, without repeating what was sent."""
    if not isinstance(error, RequestValidationError):
        raise TypeError
    problems = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
    return body(422, {"detail": "Validation error", "error_type": "validation_error", "errors": problems})


async def http_error(_: Request, error: Exception) -> Response:
    """Render what the framework refuses: unknown routes and methods."""
    if not isinstance(error, HTTPException):
        raise TypeError
    if error.status_code == 400 and error.__cause__ is not None:  # noqa: PLR2004 - the framework's, for such bodies
        unreadable = {"loc": ["body"], "msg": "The body is no JSON in UTF-8", "type": "json_invalid"}
        return body(422, {"detail": "Validation error", "error_type": "validation_error", "errors": [unreadable]})
    error_type = HTTP_ERROR_TYPES.get(error.status_code, "http_error")
    return body(error.status_code, {"detail": str(error.detail), "error_type": error_type}, dict(error.headers or {}))


async def unexpected_error(_: Request, error: Exception) -> Response:
    """Render what nobody thought of; the log has its kind, the client has not."""
    # Where it happened, without the values that stood there: they may be somebody's.
    logger.error("unexpected_error", error=type(error).__name__, trace=traceback.format_tb(error.__traceback__))
    return body(500, {"detail": ShopAssistError.detail, "error_type": ShopAssistError.code})


def add_error_handlers(app: FastAPI) -> None:
    """Let `app` render every error this way."""
    app.add_exception_handler(ShopAssistError, domain_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, unexpected_error)
