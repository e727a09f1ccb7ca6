"""Render errors as JSON with `detail` and `error_type`, and document them in OpenAPI."""

import json
import traceback
from collections.abc import Callable, Coroutine
from functools import reduce
from http import HTTPStatus
from operator import or_
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from shopassist.api.dependencies import get_container
from shopassist.errors import (
    AccountErasedError,
    AuthenticationError,
    BodyEncodedError,
    BodyTooLargeError,
    ConsentRequiredError,
    ContentTypeError,
    CreditsExhaustedError,
    GuestLimitError,
    InvalidTokenError,
    IssuerUnavailableError,
    NoticeReference,
    PermissionDeniedError,
    RateLimitedError,
    ShopAssistError,
    StorageUnavailableError,
)
from shopassist.metrics import RequestMetrics

logger = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = "5"
TOKEN_LOG_SECONDS = 60
"""Minimum time between two log lines of one process about one kind of refused token."""
VALIDATION_ERROR_TYPE = "validation_error"
HTTP_ERROR_TYPES = {404: "not_found", 405: "method_not_allowed", 400: "bad_request", 413: "body_too_large"}


class ErrorBody(BaseModel):
    """The body of an error."""

    detail: str
    error_type: str


class CreditsExhaustedBody(ErrorBody):
    """The body of an error when no credits are left."""

    available_credits: int
    max_credits: int
    is_guest: bool
    error_description: str


class ConsentRequiredBody(ErrorBody):
    """The missing consent: `notices` is the current version in all languages, empty if none is published."""

    notices: list[NoticeReference]
    agree_at: str
    read_at: str


class ValidationProblem(BaseModel):
    """One fault of an invalid request."""

    loc: list[str | int]
    msg: str
    type: str


class ValidationErrorBody(ErrorBody):
    """The body for an invalid request: `errors` lists violations of the schema, and is empty for other rules."""

    errors: list[ValidationProblem] = []


ERROR_BODY_MODELS: dict[type[ShopAssistError], type[BaseModel]] = {
    ConsentRequiredError: ConsentRequiredBody,
    CreditsExhaustedError: CreditsExhaustedBody,
}


def document_errors(*errors: type[ShopAssistError]) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI entries of the errors of a route; any route may find the database unavailable."""
    entries: dict[int | str, dict[str, Any]] = {422: {"model": ValidationErrorBody, "description": "Not valid."}}
    all_errors: list[type[ShopAssistError]] = [*errors, StorageUnavailableError]
    for status in {error.status: None for error in all_errors}:
        alike = [error for error in all_errors if error.status == status]
        models = list(dict.fromkeys(ERROR_BODY_MODELS.get(error, ErrorBody) for error in alike))
        description = " ".join(dict.fromkeys(error.detail for error in alike))
        entries.setdefault(status, {"model": reduce(or_, models), "description": description})
    return entries


IDENTITY_ERRORS = (AuthenticationError, AccountErasedError, RateLimitedError)
GUEST_ERRORS = (*IDENTITY_ERRORS, GuestLimitError)
ADMIN_ERRORS = (AuthenticationError, RateLimitedError, PermissionDeniedError)
BODY_ERRORS = (BodyTooLargeError, BodyEncodedError, ContentTypeError)


def build_error_response(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response; all characters outside ASCII are escaped, also lone surrogates."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


def count_error(request: Request, error_type: str) -> None:
    """Count an error in the metrics."""
    get_container(request).request_metrics().errors[error_type,] += 1


def count_refused_token(request: Request, error: InvalidTokenError | IssuerUnavailableError) -> None:
    """Count a refused token by its kind, and log it once in a while."""
    figures: RequestMetrics = get_container(request).request_metrics()
    figures.refused_tokens[error.kind] += 1
    if count := figures.token_log.count(error.kind, TOKEN_LOG_SECONDS):
        logger.warning("token_refused", reason=error.kind.value, count=count)


async def handle_domain_error(request: Request, error: ShopAssistError) -> Response:
    """Render an error of this product."""
    count_error(request, error.code)
    if isinstance(error, InvalidTokenError | IssuerUnavailableError):
        count_refused_token(request, error)
    headers = {}
    if error.status == AuthenticationError.status:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    elif error.status == StorageUnavailableError.status:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if error.status == StorageUnavailableError.status:
        # Only at debug level, since an unavailable database is logged once and not for each request.
        logger.debug("request_refused", error_type=error.code)
    content = {"detail": error.detail, "error_type": error.code, **error.extra}
    return build_error_response(error.status, content, headers)


async def handle_validation_error(request: Request, error: RequestValidationError) -> Response:
    """Render the faults of a request, without repeating its content."""
    if isinstance(error.body, bytes):  # FastAPI parses a body only if its Content-Type is JSON
        return await handle_domain_error(request, ContentTypeError())
    count_error(request, VALIDATION_ERROR_TYPE)
    return build_validation_response(*((list(e["loc"]), e["msg"], e["type"]) for e in error.errors()))


def build_validation_response(*problems: tuple[list[str | int], str, str]) -> Response:
    """Return the response to an invalid request; problems are places, messages and types."""
    errors = [{"loc": place, "msg": message, "type": kind} for place, message, kind in problems]
    return build_error_response(
        422, {"detail": "Validation error", "error_type": VALIDATION_ERROR_TYPE, "errors": errors}
    )


def list_methods(request: Request) -> set[str]:
    """Return the methods of the request's path; the framework names those of the first route that matches it."""
    routes = [
        route for route in iter_route_contexts(request.app.routes) if route.path_regex.match(request.scope["path"])
    ]
    methods = {method for route in routes for method in route.methods or {"GET"}}  # a folder of files has none
    return methods | {"HEAD"} if "GET" in methods else methods


async def handle_http_error(request: Request, error: HTTPException) -> Response:
    """Render errors of the framework, such as unknown routes and methods."""
    if error.status_code == 400 and error.__cause__ is not None:  # noqa: PLR2004 - raised for an undecodable body
        return build_validation_response((["body"], "The body is no JSON in UTF-8", "json_invalid"))
    error_type = HTTP_ERROR_TYPES.get(error.status_code, "http_error")
    count_error(request, error_type)
    content = {"detail": str(error.detail), "error_type": error_type}
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(list_methods(request)))
    return build_error_response(error.status_code, content, headers)


async def handle_unexpected_error(request: Request, error: Exception) -> Response:
    """Log the type of an unexpected exception, and render a generic error."""
    count_error(request, ShopAssistError.code)
    # The trace has no values, which may be personal data.
    logger.error("unexpected_error", error=type(error).__name__, trace=traceback.format_tb(error.__traceback__))
    return build_error_response(500, {"detail": ShopAssistError.detail, "error_type": ShopAssistError.code})


ERROR_HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = {
    ShopAssistError: handle_domain_error,
    RequestValidationError: handle_validation_error,
    HTTPException: handle_http_error,
}
