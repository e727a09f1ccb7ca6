"""The app while its database is away: a real PostgreSQL of its own, which is stopped and started again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import iter_route_contexts

from containers import Container
from shopassist.api.app import create_app, lifespan
from shopassist.db import migrate
from shopassist.db.manager import normalised
from shopassist.settings import Settings
from tests.databases import OwnPostgres, own_postgres
from tests.support import postgres_settings

GUEST = {"X-Session-ID": "g2wsht"}
KNOWN = {"query": "a phone that was asked for"}


@pytest.fixture(scope="module")
def running_database() -> Any:
    """One server for all tests of this module."""
    with own_postgres() as database:
        yield database


@pytest.fixture
async def database(running_database: OwnPostgres) -> AsyncIterator[OwnPostgres]:
    """A server that runs when the test begins, and when it ends."""
    await migrate.upgrade(normalised(running_database.url))
    yield running_database
    await asyncio.to_thread(running_database.start)


@pytest.fixture
def settings(database: OwnPostgres, provider: Any) -> Settings:
    """Settings on that server."""
    identity = Settings().identity.model_copy(
        update={"issuer_url": provider.issuer, "audience": "https://api.shopassist.example"}
    )
    return postgres_settings(database.url).model_copy(update={"identity": identity})
