"""The number of product files that one question passes through."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType

import httpx
import pytest

import containers
import shopassist
from shopassist.app import create_app, lifespan
from shopassist.catalog.importer.importer import load_sample
from shopassist.settings import Settings

PACKAGE = Path(shopassist.__file__).parent
GUEST = {"X-Session-ID": "way"}
WARM_UP, QUESTION = "phone with 6 GB RAM", "best 5G phone under ₹12,000 with 8GB RAM"
MAX_FILES_OF_A_MISS = 40
MAX_FILES_OF_A_HIT = 20


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of the app with the real assistant and the sample catalogue in memory."""
    container = containers.Container(settings=Settings.model_validate({"storage": {"storage": "memory"}}))
    await load_sample(container.unit_of_work())
    app = create_app(container)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def find_files(client: httpx.AsyncClient, query: str) -> list[str]:
    """Return the product files in which a function is called while the question is answered."""
    files: set[str] = set()

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(record)
    try:
        response = await client.post("/api/query", json={"query": query}, headers=GUEST)
    finally:
        sys.setprofile(None)
    assert response.json()["products"]
    own = [Path(name) for name in files if name.startswith(str(PACKAGE)) or name == containers.__file__]
    return sorted(str(path.relative_to(PACKAGE.parent)) for path in own)


async def test_a_question_passes_through_few_files(client: httpx.AsyncClient) -> None:
    """A cache miss enters few files, and a hit still fewer, so that its way can be followed."""
    for _ in range(2):
        await client.post("/api/query", json={"query": WARM_UP}, headers=GUEST)
    miss, hit = await find_files(client, QUESTION), await find_files(client, QUESTION)
    assert len(miss) <= MAX_FILES_OF_A_MISS, miss
    assert len(hit) <= MAX_FILES_OF_A_HIT, hit
