"""What contract tests share."""

from collections.abc import AsyncIterator

import pytest

from containers import Container
from shopassist.catalog.ports import CatalogRepository


@pytest.fixture
async def catalog(container: Container) -> AsyncIterator[CatalogRepository]:
    """Return the repository of an empty catalogue, in a unit of work that lasts for the test."""
    async with container.unit_of_work()() as repositories:
        yield repositories.catalog
