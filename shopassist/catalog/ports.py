"""Protocols of the catalogue."""

from collections.abc import Sequence
from typing import Protocol

from shopassist.catalog.models import Criteria, Product, UpsertCount, Vocabulary


class CatalogRepository(Protocol):
    """The table of products, within one unit of work."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        """Return products that meet every hard criterion (`find_unmet` is empty), the best text match first."""

    async def get_vocabulary(self) -> Vocabulary: ...

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        """Return the nearest word of a title for those of `words` that no product has and that may be misspelt."""

    async def upsert(self, products: Sequence[Product]) -> UpsertCount:
        """Insert or update by `(source, source_id)`."""

    async def count(self) -> int: ...


class CatalogRepositories(Protocol):
    """Repositories of the catalogue within a unit of work."""

    @property
    def catalog(self) -> CatalogRepository: ...
