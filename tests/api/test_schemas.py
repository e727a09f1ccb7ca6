"""Request and response schemas of all routes: what they must not contain, and that each field is declared once."""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

import shopassist
from tests.support.access_matrix import app_of_memory

NOUNS = ("audit", "cache", "catalog", "consent", "credits", "maintenance", "privacy", "query", "rollout")
PRIVATE_COLUMNS = {"created_at", "updated_at", "network", "hold_id", "lease_id", "held_credits"}
REPEATED = {
    "catalog": {"name": "criteria of different kinds", "currency": "of a question, and of a product"},
    "consent": {
        "text": "of a table, and of what is published into it",
        "purpose": "of what is asked for, and of what is recorded",
        "granted": "of what is asked for, and of what is recorded",
        "notice_id": "of what is asked for, and of what is recorded",
        "notice": "of a state, and of an event in the history",
        "timestamp": "of the record, and of an event",
        **dict.fromkeys(("id", "user_id"), "keys of separate tables"),
    },
    "credits": {
        **dict.fromkeys(("user_id", "is_guest", "available_credits", "max_credits"), "an account, and its status"),
        **dict.fromkeys(("amount", "reason"), "an adjustment, its result, and the ledger's row"),
        **dict.fromkeys(("last_reset_timestamp", "created_at", "expires_at"), "of separate tables"),
        "subject_hash": "of separate tables",
    },
    "query": {
        "query": "of the request, which the response repeats",
        "cached": "at two levels of the response, as clients expect",
        **dict.fromkeys(
            ("products", "recommendations_summary", "near_misses", "criteria"),
            "the stored answer is independent of the response, which has some of its fields in the metadata",
        ),
    },
    "rollout": {"percent": "of the request, and of the status"},
}
"""Fields that unrelated schemas of a noun both declare, with the reason."""


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """Return the app over memory storage."""
    return app_of_memory()


def find_routes(routes: list[Any]) -> Iterator[APIRoute]:
    """Yield all routes of the API, also of included routers."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from find_routes(route.original_router.routes)


def find_models(annotation: Any) -> set[type[BaseModel]]:
    """Return the models in a type, without the models of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in typing.get_args(annotation) for model in find_models(part)}


def test_no_table_is_a_request_body(app: FastAPI) -> None:
    """SQLModel does not validate tables, so that a body must have a schema of its own."""
    routes = [route for route in find_routes(app.routes) if route.body_field is not None]
    assert routes
    for route in routes:
        assert route.body_field is not None
        models = find_models(route.body_field.field_info.annotation)
        assert models, route.path
        assert not [model for model in models if hasattr(model, "__table__")], route.path


def test_no_private_column_is_in_a_response(app: FastAPI) -> None:
    """Internal times, hashes and networks are shown to no client."""
    for name, schema in app.openapi()["components"]["schemas"].items():
        fields = set(schema.get("properties", {}))
        private = {field for field in fields if field in PRIVATE_COLUMNS or field.endswith("_hash")}
        assert not private, f"{name}: {private}"


def find_schemas(noun: str) -> list[type[BaseModel]]:
    """Return the models that are defined in a noun's folder."""
    package = importlib.import_module(f"{shopassist.__name__}.{noun}")
    modules = [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("noun", NOUNS)
def test_a_field_is_declared_once(noun: str) -> None:
    """Unrelated schemas of a noun do not declare a field of the same name and type, except with a reason."""
    repeated: dict[str, set[str]] = {}
    for one, other in combinations(find_schemas(noun), 2):
        if issubclass(one, other) or issubclass(other, one):
            continue
        for field in set(inspect.get_annotations(one)) & set(inspect.get_annotations(other)):
            ours, theirs = one.model_fields.get(field), other.model_fields.get(field)
            if ours and theirs and ours.annotation == theirs.annotation:
                repeated.setdefault(field, set()).update((one.__name__, other.__name__))
    assert set(repeated) == set(REPEATED.get(noun, {})), repeated
