"""The catalogue in PostgreSQL: exact criteria to filter, full text to rank, trigrams to put spelling right."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import defer
from sqlmodel import col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from shopassist.db.postgres.catalog_filter import conditions
from shopassist.db.postgres.catalog_rank import matching, preferred, wanted
from shopassist.db.postgres.catalog_statements import (
    ALIKE,
    BRANDS,
    CATEGORIES,
    CURRENCIES,
    KNOWN,
    SPELLING_THRESHOLD,
    UPSERT,
)
from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import Product
from shopassist.models.catalog import UpsertCount, Vocabulary, nearest_word
from shopassist.models.criteria import Criteria

COLUMNS = (
    *("source", "source_id", "title", "brand", "category", "description", "price", "currency", "price_as_of"),
    *("rating", "rating_count", "attributes", "link", "words"),
)
SHORTEST_MISSPELT = 4


class PostgresCatalogRepository(BaseRepository):
    """Implements `CatalogRepository`."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        meeting = select(Product).options(defer(Product.search)).where(*conditions(criteria))
        named = matching(criteria)
        if named is None:
            return await self._products(meeting.order_by(*preferred(criteria.order)).limit(limit))
        best = meeting.where(named.matches).order_by(
            named.count.desc(), *wanted(criteria.order), named.rank.desc(), *preferred(criteria.order)
        )
        found = await self._products(best.limit(limit))
        if len(found) < limit:
            others = meeting.where(col(Product.id).not_in([product.id for product in found]))
            found += await self._products(others.order_by(*preferred(criteria.order)).limit(limit - len(found)))
        return found

    async def correct(self, words: Sequence[str]) -> dict[str, str]:
        await self.session.execute(SPELLING_THRESHOLD)
        corrected = {}
        for word in {word for word in words if word.isalpha() and len(word) >= SHORTEST_MISSPELT}:
            known = (await self.session.execute(KNOWN, {"words": [word]})).scalar_one()
            titles = () if known else (await self.session.execute(ALIKE, {"word": word})).scalars()
            if nearest := nearest_word(word, titles):
                corrected[word] = nearest
        return corrected

    async def upsert(self, products: Sequence[Product]) -> UpsertCount:
        latest = {(product.source, product.source_id): product for product in products}
        rows = json.dumps([_row(product) for product in latest.values()], default=str, allow_nan=False)
        inserted, updated = (await self.session.execute(UPSERT, {"products": rows})).one()
        return UpsertCount(inserted=inserted, updated=updated, unchanged=len(latest) - inserted - updated)

    async def count(self) -> int:
        return (await self.session.execute(select(func.count(col(Product.id))))).scalar_one()

    async def vocabulary(self) -> Vocabulary:
        names = [
            tuple((await self.session.execute(statement)).scalars()) for statement in (CATEGORIES, BRANDS, CURRENCIES)
        ]
        return Vocabulary(*names)

    async def _products(self, statement: SelectOfScalar[Product]) -> list[Product]:
        return list(await self.session.scalars(statement))


def _row(product: Product) -> dict[str, Any]:
    return {name: getattr(product, name) for name in COLUMNS}
