"""PostgreSQL catalogue repository and its SQL statements."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import defer
from sqlmodel import col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from shopassist.catalog.criteria import Criteria
from shopassist.catalog.models import Product, UpsertCount, Vocabulary, find_nearest_word
from shopassist.catalog.postgres.search import build_conditions, build_order, build_requested_order, build_text_match
from shopassist.db.base_repository import BaseRepository

# One JSON parameter for any number of rows; sorted, so that two imports never wait for each other in a circle.
# A row that was there before carries the number of the transaction that replaces it in xmax, a new row has none.
UPSERT_PRODUCTS = text("""
    WITH given AS (
        SELECT * FROM jsonb_to_recordset(cast(:products AS jsonb)) AS row(
            source text, source_id text, title text, brand text, category text, description text, price numeric,
            currency text, price_as_of date, rating numeric, rating_count int, attributes jsonb, link text, words text[]
        )
    ), written AS (
        INSERT INTO products AS stored (source, source_id,
            title, brand, category, description, price, currency, price_as_of, rating, rating_count,
            attributes, link, words
        )
        SELECT source, source_id,
            title, brand, category, description, price, currency, price_as_of, rating, rating_count,
            attributes, link, words
        FROM given ORDER BY source, source_id
        ON CONFLICT (source, source_id) DO UPDATE
        SET (
            title, brand, category, description, price, currency, price_as_of, rating, rating_count,
            attributes, link, words, updated_at
        ) = (SELECT
            excluded.title, excluded.brand, excluded.category, excluded.description, excluded.price,
            excluded.currency, excluded.price_as_of, excluded.rating, excluded.rating_count,
            excluded.attributes, excluded.link, excluded.words, now()
        )
        WHERE (
            stored.title, stored.brand, stored.category, stored.description, stored.price, stored.currency,
            stored.price_as_of, stored.rating, stored.rating_count, stored.attributes, stored.link, stored.words
        ) IS DISTINCT FROM (
            excluded.title, excluded.brand, excluded.category, excluded.description, excluded.price,
            excluded.currency, excluded.price_as_of, excluded.rating, excluded.rating_count,
            excluded.attributes, excluded.link, excluded.words
        )
        RETURNING stored.xmax = 0 AS inserted
    )
    SELECT count(*) FILTER (WHERE inserted), count(*) FILTER (WHERE NOT inserted) FROM written
""")

# Every value of a column once, found by hopping through its index (models/catalog.py) from one value to the next.
SELECT_CATEGORIES = text("""
    WITH RECURSIVE found AS (
        (
            SELECT lower(coalesce(category, '')) AS key, category AS spelled FROM products
            WHERE lower(coalesce(category, '')) > '' ORDER BY 1 LIMIT 1
        )
        UNION ALL
        SELECT later.key, later.spelled FROM found
        CROSS JOIN LATERAL (
            SELECT lower(coalesce(category, '')) AS key, category AS spelled FROM products
            WHERE lower(coalesce(category, '')) > found.key ORDER BY 1 LIMIT 1
        ) AS later
    )
    SELECT spelled FROM found
""")

SELECT_BRANDS = text("""
    WITH RECURSIVE found AS (
        (
            SELECT lower(coalesce(brand, '')) AS key, brand AS spelled FROM products
            WHERE lower(coalesce(brand, '')) > '' ORDER BY 1 LIMIT 1
        )
        UNION ALL
        SELECT later.key, later.spelled FROM found
        CROSS JOIN LATERAL (
            SELECT lower(coalesce(brand, '')) AS key, brand AS spelled FROM products
            WHERE lower(coalesce(brand, '')) > found.key ORDER BY 1 LIMIT 1
        ) AS later
    )
    SELECT spelled FROM found
""")

SELECT_CURRENCIES = text("""
    WITH RECURSIVE found AS (
        (SELECT currency AS key, currency AS spelled FROM products WHERE currency > '' ORDER BY 1 LIMIT 1)
        UNION ALL
        SELECT later.key, later.spelled FROM found
        CROSS JOIN LATERAL (
            SELECT currency AS key, currency AS spelled FROM products
            WHERE currency > found.key ORDER BY 1 LIMIT 1
        ) AS later
    )
    SELECT spelled FROM found
""")

# Lower than the default of 0.6: "iphnoe" and "iphone" share three of seven trigrams.
SET_SIMILARITY_THRESHOLD = text("SELECT set_config('pg_trgm.word_similarity_threshold', '0.4', true)")
# Counted, for EXISTS tempts the planner to read the table until it meets the word, which a misspelt one never is.
COUNT_PRODUCTS_WITH_WORDS = text("SELECT count(*) FROM products WHERE words @> cast(:words AS text[])")
SELECT_SIMILAR_TITLES = text("""
    SELECT title FROM products WHERE :word <% title ORDER BY word_similarity(:word, title) DESC LIMIT 20
""")

STORED_COLUMNS = (
    *("source", "source_id", "title", "brand", "category", "description", "price", "currency", "price_as_of"),
    *("rating", "rating_count", "attributes", "link", "words"),
)
MIN_CORRECTED_LENGTH = 4


class PostgresCatalogRepository(BaseRepository):
    """Implements `CatalogRepository`."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        meeting = select(Product).options(defer(Product.search)).where(*build_conditions(criteria))
        named = build_text_match(criteria)
        if named is None:
            return await self._products(meeting.order_by(*build_order(criteria.sort_order)).limit(limit))
        best = meeting.where(named.matches).order_by(
            named.count.desc(),
            *build_requested_order(criteria.sort_order),
            named.rank.desc(),
            *build_order(criteria.sort_order),
        )
        found = await self._products(best.limit(limit))
        if len(found) < limit:
            others = meeting.where(col(Product.id).not_in([product.id for product in found]))
            found += await self._products(others.order_by(*build_order(criteria.sort_order)).limit(limit - len(found)))
        return found

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        await self.session.execute(SET_SIMILARITY_THRESHOLD)
        corrected = {}
        for word in {word for word in words if word.isalpha() and len(word) >= MIN_CORRECTED_LENGTH}:
            known = (await self.session.execute(COUNT_PRODUCTS_WITH_WORDS, {"words": [word]})).scalar_one()
            titles = () if known else (await self.session.execute(SELECT_SIMILAR_TITLES, {"word": word})).scalars()
            if nearest := find_nearest_word(word, titles):
                corrected[word] = nearest
        return corrected

    async def upsert(self, products: Sequence[Product]) -> UpsertCount:
        latest = {(product.source, product.source_id): product for product in products}
        rows = json.dumps([_to_row(product) for product in latest.values()], default=str, allow_nan=False)
        inserted, updated = (await self.session.execute(UPSERT_PRODUCTS, {"products": rows})).one()
        return UpsertCount(inserted=inserted, updated=updated, unchanged=len(latest) - inserted - updated)

    async def count(self) -> int:
        return (await self.session.execute(select(func.count(col(Product.id))))).scalar_one()

    async def get_vocabulary(self) -> Vocabulary:
        names = [
            tuple((await self.session.execute(statement)).scalars())
            for statement in (SELECT_CATEGORIES, SELECT_BRANDS, SELECT_CURRENCIES)
        ]
        return Vocabulary(*names)

    async def _products(self, statement: SelectOfScalar[Product]) -> list[Product]:
        return list(await self.session.scalars(statement))


def _to_row(product: Product) -> dict[str, Any]:
    return {name: getattr(product, name) for name in STORED_COLUMNS}
