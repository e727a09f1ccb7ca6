"""Reads of the catalogue outside a unit of work."""

from collections.abc import Sequence

from shopassist.catalog.criteria import Criteria
from shopassist.catalog.models import Product, Vocabulary
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork


class CatalogService:
    """Implements `CatalogReader`; each call is a unit of work of its own, so that no connection is held in between."""

    def __init__(self, unit_of_work: UnitOfWork[CatalogRepositories]) -> None:
        self._unit_of_work = unit_of_work

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        return await self._unit_of_work.run(lambda work: work.catalog.search(criteria, limit), repeatable=True)

    async def get_vocabulary(self) -> Vocabulary:
        return await self._unit_of_work.run(lambda work: work.catalog.get_vocabulary(), repeatable=True)

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        return await self._unit_of_work.run(lambda work: work.catalog.find_corrections(words), repeatable=True)
