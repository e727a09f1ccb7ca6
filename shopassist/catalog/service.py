"""Catalogue reads for the assistant; each call is a short unit of work."""

from collections.abc import Sequence

from shopassist.catalog.criteria import Criteria
from shopassist.catalog.models import Product, Vocabulary
from shopassist.catalog.ports import CatalogRepositories
from shopassist.db.ports import UnitOfWork


class CatalogService:
    """Looks products up; nothing is held between two calls."""

    def __init__(self, unit_of_work: UnitOfWork[CatalogRepositories]) -> None:
        """Each call begins one."""
        self._unit_of_work = unit_of_work

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        """Products that meet every hard criterion, the best text match first."""
        return await self._unit_of_work.run(lambda work: work.catalog.search(criteria, limit), repeatable=True)

    async def get_vocabulary(self) -> Vocabulary:
        """The names that the catalogue knows."""
        return await self._unit_of_work.run(lambda work: work.catalog.get_vocabulary(), repeatable=True)

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        """The catalogue's nearest word for each of `words` that it does not know and that may be a misspelling."""
        return await self._unit_of_work.run(lambda work: work.catalog.find_corrections(words), repeatable=True)
