"""The catalogue in PostgreSQL: exact criteria to filter, full text to rank, trigrams to put spelling right."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import defer
from sqlmodel import col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from shopassist.db.postgres.catalog_filter import conditions
from shopassist.db.postgres.catalog_rank import matching, preferred, wanted
from shopassist.db.postgres.repository import BaseRepository
from shopassist.models import Product
from shopassist.models.catalog import BRAND_KEY, CATEGORY_KEY, UpsertCount, Vocabulary, nearest_word
from shopassist.models.criteria import Criteria

COLUMNS = (
    "title",
    "brand",
    "category",
    "description",
    "price",
    "currency",
    "price_as_of",
    "rating",
    "rating_count",
    "attributes",
    "link",
    "words",
)
NAMES = ", ".join(COLUMNS)
# One JSON parameter for any number of rows; sorted, so that two imports never wait for each other in a circle.
# A row that was there before carries the number of the transaction that replaces it in xmax, a new row has none.
UPSERT = text(f"""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(cast(:products AS jsonb)) AS row(
            source text, source_id text, title text, brand text, category text, description text, price numeric,
            currency text, price_as_of date, rating numeric, rating_count int, attributes jsonb, link text, words text[]
        )
    ), written AS (
        INSERT INTO products AS stored (source, source_id, {NAMES})
        SELECT source, source_id, {NAMES} FROM given ORDER BY source, source_id
        ON CONFLICT (source, source_id) DO UPDATE
        SET ({NAMES}, updated_at) = (SELECT {", ".join(f"excluded.{name}" for name in COLUMNS)}, now())
        WHERE ({", ".join(f"stored.{name}" for name in COLUMNS)})
            IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in COLUMNS)})
        RETURNING stored.xmax = 0 AS inserted
    )
    SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written
""")  # noqa: S608 - only names of columns, none of them from outside


def _spellings(key: str, column: str) -> str:
    """Every value of `column` once, found by hopping through the index on `key` from one value to the next."""
    following = f"SELECT {key} AS key, {column} AS spelled FROM products"  # noqa: S608 - names from this module
    return f"""
        WITH RECURSIVE found AS (
            ({following} WHERE {key} > '' ORDER BY 1 LIMIT 1)
            UNION ALL
            SELECT later.key, later.spelled FROM found
            CROSS JOIN LATERAL ({following} WHERE {key} > found.key ORDER BY 1 LIMIT 1) AS later
        )
        SELECT spelled FROM found
    """  # noqa: S608


CATEGORIES = text(_spellings(CATEGORY_KEY, "category"))
BRANDS = text(_spellings(BRAND_KEY, "brand"))
CURRENCIES = text(_spellings("currency", "currency"))


# Lower than the default of 0.6: "iphnoe" and "iphone" share three of seven trigrams.
SPELLING_THRESHOLD = text("SELECT set_config('pg_trgm.word_similarity_threshold', '0.4', true)")
# Counted, for EXISTS tempts the planner to read the table until it meets the word, which a misspelt one never is.
KNOWN = text("SELECT count(*) FROM products WHERE words @> cast(:words AS text[])")
ALIKE = text("""
    SELECT title FROM products WHERE :word <% title ORDER BY word_similarity(:word, title) DESC LIMIT 20
""")
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
    return {name: getattr(product, name) for name in ("source", "source_id", *COLUMNS)}
