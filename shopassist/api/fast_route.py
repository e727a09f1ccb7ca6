"""Route class that serves plain requests without FastAPI's general dependency resolution."""

from collections.abc import Awaitable, Callable, Coroutine
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, ValidationError

RouteHandler = Callable[[Request], Coroutine[Any, Any, Response]]
JSON_CONTENT_TYPE = b"application/json"


def is_plain(dependant: Dependant) -> bool:
    """Return whether an endpoint takes only the request, dependencies of the request alone, headers and one model."""
    others = (dependant.path_params, dependant.query_params, dependant.cookie_params, dependant.response_param_name)
    bodies = [field.field_info.annotation for field in dependant.body_params]
    return (
        not any(others)
        and iscoroutinefunction(dependant.call)
        and len(bodies) <= 1
        and all(isinstance(model, type) and issubclass(model, BaseModel) for model in bodies)
        and all(
            # One without a name is for OpenAPI only: `identify_caller` reads the headers.
            isinstance(part.call, SecurityBase) if part.name is None else takes_only_request(part)
            for part in dependant.dependencies
        )
    )


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
        if not is_plain(self.dependant):
            return general
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        parts: list[tuple[str, Any]] = [(part.name, part.call) for part in self.dependant.dependencies if part.name]
        bodies: list[tuple[str, Any]] = [(f.name, f.field_info.annotation) for f in self.dependant.body_params]
        special_headers = {field.alias.lower().encode() for field in self.dependant.header_params}
        request_name = self.dependant.request_param_name

        async def direct(request: Request) -> Response:
            headers = request.scope["headers"]
            if request.app.dependency_overrides or (special_headers and any(n in special_headers for n, _ in headers)):
                return await general(request)
            values: dict[str, Any] = {}
            for name, model in bodies:
                if [value for header, value in headers if header == b"content-type"] != [JSON_CONTENT_TYPE]:
                    return await general(request)
                try:
                    values[name] = model.__pydantic_validator__.validate_json(await request.body())
                except ValidationError:
                    return await general(request)
            if request_name is not None:
                values[request_name] = request
            for name, take in parts:
                values[name] = await take(request)
            return await endpoint(**values)

        return direct


def build_json_response(model: BaseModel, headers: dict[str, str] | None = None) -> Response:
    """Return a response with `model` as its body, without validating it again."""
    return Response(model.__pydantic_serializer__.to_json(model), headers=headers, media_type="application/json")
