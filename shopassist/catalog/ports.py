"""Protocols of the catalogue: the repository, and the reads that the assistant needs."""

from collections.abc import Sequence
from typing import Protocol

from shopassist.catalog.criteria import Criteria
from shopassist.catalog.models import Product, UpsertCount, Vocabulary


class CatalogRepository(Protocol):
    """Products."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        """Products that meet every hard criterion (`Criteria.find_unmet` is empty), the best text match first."""

    async def upsert(self, products: Sequence[Product]) -> UpsertCount:
        """Insert or update by `(source, source_id)`."""

    async def count(self) -> int: ...

    async def get_vocabulary(self) -> Vocabulary: ...

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        """The catalogue's nearest word for each of `words` that it does not know and that may be a misspelling."""


class CatalogReader(Protocol):
    """The products, each call a short unit of work of its own."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        """Products that meet every hard criterion, the best text match first."""

    async def get_vocabulary(self) -> Vocabulary:
        """The names that the catalogue knows."""

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        """The catalogue's nearest word for each of `words` that it does not know and that may be a misspelling."""


class CatalogRepositories(Protocol):
    """Repositories of the catalogue within a unit of work."""

    @property
    def catalog(self) -> CatalogRepository: ...
