"""PostgreSQL catalogue repository: search conditions, text match, order, and statements."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Select, SQLColumnExpression, Text, literal_column
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array, insert
from sqlalchemy.orm import defer
from sqlmodel import SQLModel, col, func, select

from shopassist.catalog import models
from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.catalog.models import STORED_FIELDS, Bound, Criteria, Feature, Product, SortOrder, words_of
from shopassist.db.database import ADD_EXTENSION_SCHEMA, BaseRepository

BRAND_EXPRESSION: ColumnElement[str] = literal_column(models.BRAND_KEY)
CATEGORY_EXPRESSION: ColumnElement[str] = literal_column(models.CATEGORY_KEY)
JSON_FALSE: ColumnElement[Any] = literal_column("'false'::jsonb")
LINK_HOST = func.split_part(func.lower(col(Product.link)), "/", 3)
ENGLISH_CONFIG: ColumnElement[Any] = literal_column("'english'::regconfig")
RANK_BY_LOG_LENGTH = 1
PRODUCT_KEY = ("source", "source_id")


def build_upsert() -> Select[int, int]:
    """Build the statement that inserts or updates products and counts both. Its one parameter is a JSON array of rows.

    Rows are sorted, so that two imports cannot deadlock; a row that would not change is not written.
    """
    table = SQLModel.metadata.tables["products"]
    rows = func.jsonb_to_recordset(sa.cast(sa.bindparam("products", type_=Text), JSONB)).table_valued(
        *(sa.column(name, table.c[name].type) for name in STORED_FIELDS)
    )
    given = rows.render_derived(name="given", with_types=True)
    insertion = insert(table).from_select(
        STORED_FIELDS, sa.select(given).order_by(given.c.source, given.c.source_id), include_defaults=False
    )
    values = [name for name in STORED_FIELDS if name not in PRODUCT_KEY]
    written = (
        insertion.on_conflict_do_update(
            index_elements=PRODUCT_KEY,
            set_={name: insertion.excluded[name] for name in values} | {"updated_at": func.now()},
            where=sa.tuple_(*(table.c[name] for name in values)).is_distinct_from(
                sa.tuple_(*(insertion.excluded[name] for name in values))
            ),
        )
        # xmax of a returned row is 0 only if the row was inserted.
        .returning(literal_column("products.xmax = 0", sa.Boolean).label("inserted"))
        .cte("written")
    )
    inserted = written.c.inserted
    return sa.select(func.count().filter(inserted), func.count().filter(~inserted)).select_from(written)


UPSERT_PRODUCTS = build_upsert()
# The default is 0.6, but "iphnoe" and "iphone" share only three of seven trigrams.
SET_SIMILARITY_THRESHOLD = sa.text("SELECT set_config('pg_trgm.word_similarity_threshold', '0.4', true)")
# With EXISTS the planner may scan the table, because it expects to find the word soon; a misspelt word is never found.
COUNT_PRODUCTS_WITH_WORDS = sa.text("SELECT count(*) FROM products WHERE words @> cast(:words AS text[])")
SELECT_SIMILAR_TITLES = sa.text("""
    SELECT title FROM products WHERE :word <% title ORDER BY word_similarity(:word, title) DESC LIMIT 20
""")


class PostgresCatalogRepository(BaseRepository):
    """Implements `CatalogRepository`."""

    async def search(self, criteria: Criteria, limit: int = 60) -> list[Product]:
        matching = select(Product).options(defer(Product.search)).where(*build_conditions(criteria))
        order = build_order(criteria.sort_order)
        match = build_text_match(criteria)
        if match is None:
            return list(await self.session.scalars(matching.order_by(*order).limit(limit)))
        best = matching.where(match.matches).order_by(
            match.count.desc(), *build_requested_order(criteria.sort_order), match.rank.desc(), *order
        )
        products = list(await self.session.scalars(best.limit(limit)))
        if len(products) < limit:
            others = matching.where(col(Product.id).not_in([product.id for product in products]))
            products += await self.session.scalars(others.order_by(*order).limit(limit - len(products)))
        return products

    async def find_corrections(self, words: Sequence[str]) -> dict[str, str]:
        await self.session.execute(ADD_EXTENSION_SCHEMA, {"is_local": True})
        await self.session.execute(SET_SIMILARITY_THRESHOLD)
        corrected = {}
        for word in set(filter(models.is_correctable, words)):
            known = await self.session.scalar(COUNT_PRODUCTS_WITH_WORDS, {"words": [word]})
            titles = () if known else await self.session.scalars(SELECT_SIMILAR_TITLES, {"word": word})
            if nearest := models.find_nearest_word(word, titles):
                corrected[word] = nearest
        return corrected

    async def upsert(self, products: Sequence[Product]) -> models.UpsertCount:
        latest = {product.key: product for product in products}
        rows = [{name: getattr(product, name) for name in STORED_FIELDS} for product in latest.values()]
        parameters = {"products": json.dumps(rows, default=str, allow_nan=False)}
        inserted, updated = (await self.session.execute(UPSERT_PRODUCTS, parameters)).one()
        return models.UpsertCount(inserted=inserted, updated=updated, unchanged=len(latest) - inserted - updated)

    async def count(self) -> int:
        return (await self.session.execute(select(func.count(col(Product.id))))).scalar_one()

    async def get_vocabulary(self) -> models.Vocabulary:
        return models.Vocabulary(*[tuple(await self.session.scalars(statement)) for statement in SELECT_NAMES])


def _select_spellings(key: SQLColumnExpression[Any], spelling: SQLColumnExpression[Any]) -> Select[Any]:
    """Select one spelling per key. The recursion jumps from key to key in the index instead of reading all rows."""

    def select_next(previous: Any) -> Select[Any]:
        columns: tuple[Any, ...] = (key.label("key"), spelling.label("spelling"))
        return sa.select(*columns).where(key > previous).order_by(key).limit(1)

    found = select_next("").cte("found", recursive=True)
    later = select_next(found.c.key).lateral("later")
    found = found.union_all(sa.select(later.c.key, later.c.spelling).select_from(found.join(later, sa.true())))
    return sa.select(found.c.spelling)


SELECT_NAMES = (
    _select_spellings(CATEGORY_EXPRESSION, col(Product.category)),
    _select_spellings(BRAND_EXPRESSION, col(Product.brand)),
    _select_spellings(col(Product.currency), col(Product.currency)),
)
"""Categories, brands and currencies."""


def build_conditions(criteria: Criteria) -> list[ColumnElement[bool]]:
    """Return the conditions of rows for which `criteria.find_unmet` finds nothing."""
    return [
        *_build_identity_conditions(criteria),
        *_build_price_conditions(criteria),
        *(_build_bound_condition(bound) for bound in criteria.bounds),
        *(_build_feature_condition(feature) for feature in criteria.features),
        *(sa.not_(_build_feature_condition(feature)) for feature in criteria.excluded_features),
        *(contains_words(words_of(term)) for term in criteria.terms),
    ]


def _build_identity_conditions(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    if criteria.categories:
        kind = (
            sa.and_(CATEGORY_EXPRESSION == "", _build_feature_condition(criteria.category_words))
            if criteria.category_words
            else sa.false()
        )
        yield sa.or_(CATEGORY_EXPRESSION.in_(criteria.categories), kind)
    if criteria.excluded_categories:
        yield CATEGORY_EXPRESSION.not_in(criteria.excluded_categories)
    if criteria.brands:
        yield BRAND_EXPRESSION.in_(criteria.brands)
    if criteria.excluded_brands:
        yield sa.or_(BRAND_EXPRESSION == "", BRAND_EXPRESSION.not_in(criteria.excluded_brands))
    if criteria.marketplace:
        yield func.strpos(LINK_HOST, criteria.marketplace.lower()) > 0


def _build_price_conditions(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    price = col(Product.price)
    yield price.is_not(None)
    if criteria.price_min is not None:
        yield price >= criteria.price_min
    if criteria.price_max is not None:
        yield price <= criteria.price_max
    if criteria.currency and (criteria.price_min is not None or criteria.price_max is not None):
        yield col(Product.currency) == criteria.currency


def _build_bound_condition(bound: Bound) -> ColumnElement[bool]:
    number = _build_number_expression(bound.name)
    limits: list[ColumnElement[bool]] = [number.is_not(None)]
    if bound.minimum is not None:
        limits.append(number > bound.minimum if bound.exclusive else number >= bound.minimum)
    if bound.maximum is not None:
        limits.append(number < bound.maximum if bound.exclusive else number <= bound.maximum)
    return sa.and_(*limits)


def _build_number_expression(name: str) -> ColumnElement[Any]:
    if name in COLUMN_KEYS:
        column: ColumnElement[Any] = getattr(Product, name)
        return column
    value = col(Product.attributes)[name]
    # CASE prevents casts of values that are not numbers; PostgreSQL may evaluate conditions in any order.
    return sa.case((func.jsonb_typeof(value) == "number", sa.cast(value.astext, sa.Numeric)), else_=None)


def _build_feature_condition(feature: Feature) -> ColumnElement[bool]:
    stated = sa.or_(sa.false(), *(contains_words(words) for words in feature.split_wordings()))
    if feature.denying_attribute is None:
        return stated
    return sa.and_(stated, col(Product.attributes)[feature.denying_attribute].is_distinct_from(JSON_FALSE))


def contains_words(words: list[str]) -> ColumnElement[bool]:
    """Return the condition that a product has all of `words`; it uses the index on them."""
    return col(Product.words).contains(sa.cast(array(words), ARRAY(Text))) if words else sa.true()


@dataclass(frozen=True, slots=True)
class TextMatch:
    """How a product matches the terms and preferences: any of them, how many of them, and how well."""

    matches: ColumnElement[bool]
    count: ColumnElement[int]
    rank: ColumnElement[float]


def build_text_match(criteria: Criteria) -> TextMatch | None:
    """Return None if the criteria have no words."""
    phrases = {" ".join(words): words for words in map(words_of, (*criteria.terms, *criteria.preferences)) if words}
    if not phrases:
        return None
    search = col(Product.search)
    queries: list[ColumnElement[Any]] = [func.plainto_tsquery(ENGLISH_CONFIG, phrase) for phrase in phrases]
    any_phrase = reduce(lambda left, right: left.op("||")(right), queries)
    stated = [contains_words(words) for words in phrases.values()]
    conditions = [*(search.op("@@")(query) for query in queries), *stated]
    return TextMatch(
        matches=sa.or_(search.op("@@")(any_phrase), *stated),
        count=reduce(add, (sa.case((condition, 1), else_=0) for condition in conditions)),
        rank=func.ts_rank_cd(search, any_phrase, RANK_BY_LOG_LENGTH),
    )


def build_requested_order(order: SortOrder) -> list[ColumnElement[Any]]:
    """Return the order that the shopper asked for; empty for relevance."""
    by_order: dict[SortOrder, list[ColumnElement[Any]]] = {
        SortOrder.CHEAPEST: [col(Product.price).asc()],
        SortOrder.MOST_EXPENSIVE: [col(Product.price).desc()],
        SortOrder.BEST_RATED: [col(Product.rating).desc().nulls_last(), col(Product.rating_count).desc().nulls_last()],
    }
    return by_order.get(order, [])


def build_order(order: SortOrder) -> list[ColumnElement[Any]]:
    """Return the order of equal text matches: the requested one, else by rating; at last by id, so that none tie."""
    return [*(build_requested_order(order) or build_requested_order(SortOrder.BEST_RATED)), col(Product.id).asc()]
