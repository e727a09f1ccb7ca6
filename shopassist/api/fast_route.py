"""Route class that serves plain requests without FastAPI's general dependency resolution."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ValidationError

RouteHandler = Callable[[Request], Coroutine[Any, Any, Response]]
JSON_CONTENT_TYPE = b"application/json"


@dataclass(frozen=True, slots=True)
class FastRoutePlan:
    """The sources of an endpoint's arguments."""

    takers: tuple[tuple[str, Callable[[Request], Awaitable[Any]]], ...]
    request_name: str | None
    body: tuple[str, type[BaseModel]] | None
    special_headers: frozenset[bytes]


def build_plan(dependant: Dependant) -> FastRoutePlan | None:
    """Return the plan of an endpoint that can be served directly; None for others."""
    takers = []
    for dependency in dependant.dependencies:
        if isinstance(dependency.call, SecurityBase) and dependency.name is None:
            continue  # for OpenAPI only: `identify_caller` reads the headers
        if dependency.name is None or not takes_only_request(dependency):
            return None
        takers.append((dependency.name, dependency.call))
    body = None
    if dependant.body_params:
        [field, *more] = dependant.body_params
        model = field.field_info.annotation
        if more or not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
        body = (field.name, model)
    others = (dependant.path_params, dependant.query_params, dependant.cookie_params, dependant.response_param_name)
    if any(others) or not iscoroutinefunction(dependant.call):
        return None
    headers = frozenset(field.alias.lower().encode() for field in dependant.header_params)
    return FastRoutePlan(tuple(takers), dependant.request_param_name, body, headers)  # type: ignore[arg-type]


def takes_only_request(dependant: Dependant) -> bool:
    """Return whether a dependency is an asynchronous function of the request alone."""
    params = (
        *(dependant.dependencies, dependant.path_params, dependant.query_params, dependant.header_params),
        *(dependant.cookie_params, dependant.body_params, dependant.response_param_name),
    )
    return dependant.request_param_name is not None and not any(params) and iscoroutinefunction(dependant.call)


class FastRoute(APIRoute):
    """Calls an endpoint, which returns a `Response`, directly for plain requests."""

    def get_route_handler(self) -> RouteHandler:
        """Return the handler of requests."""
        general = super().get_route_handler()
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        plan = build_plan(self.dependant)
        if plan is None:
            return general
        takers, request_name, body, special_headers = plan.takers, plan.request_name, plan.body, plan.special_headers

        async def direct(request: Request) -> Response:
            headers = request.scope["headers"]
            if request.app.dependency_overrides or (special_headers and any(n in special_headers for n, _ in headers)):
                return await general(request)
            values: dict[str, Any] = {}
            if body is not None:
                if [value for name, value in headers if name == b"content-type"] != [JSON_CONTENT_TYPE]:
                    return await general(request)
                try:
                    values[body[0]] = body[1].__pydantic_validator__.validate_json(await request.body())
                except ValidationError:
                    return await general(request)
            if request_name is not None:
                values[request_name] = request
            for name, take in takers:
                values[name] = await take(request)
            return await endpoint(**values)

        return direct


def build_json_response(model: BaseModel, headers: dict[str, str] | None = None) -> Response:
    """Return a response with `model` as its body, without validating it again."""
    return Response(model.__pydantic_serializer__.to_json(model), headers=headers, media_type="application/json")
