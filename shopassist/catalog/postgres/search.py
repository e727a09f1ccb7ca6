"""SQL conditions of search criteria, and the order of the products that meet them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import ColumnElement, Numeric, and_, case, cast, false, func, literal_column, not_, or_, true
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.types import Text
from sqlmodel import col

from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.catalog.criteria import Bound, Criteria, Feature, SortOrder
from shopassist.catalog.models import BRAND_KEY, CATEGORY_KEY, Product, words_of

BRAND_EXPRESSION: ColumnElement[str] = literal_column(BRAND_KEY)
CATEGORY_EXPRESSION: ColumnElement[str] = literal_column(CATEGORY_KEY)
JSON_FALSE: ColumnElement[Any] = literal_column("'false'::jsonb")
LINK_HOST = func.split_part(func.lower(col(Product.link)), "/", 3)


def build_conditions(criteria: Criteria) -> list[ColumnElement[bool]]:
    """What a row must meet so that `criteria.find_unmet` finds nothing."""
    return [
        *_build_identity_conditions(criteria),
        *_build_price_conditions(criteria),
        *(_build_bound_condition(bound) for bound in criteria.bounds),
        *(_build_feature_condition(feature) for feature in criteria.features),
        *(not_(_build_feature_condition(feature)) for feature in criteria.excluded_features),
        *(contains_words(words_of(term)) for term in criteria.terms),
    ]


def _build_identity_conditions(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    if criteria.categories:
        kind = (
            and_(CATEGORY_EXPRESSION == "", _build_feature_condition(criteria.category_words))
            if criteria.category_words
            else false()
        )
        yield or_(CATEGORY_EXPRESSION.in_(criteria.categories), kind)
    if criteria.excluded_categories:
        yield CATEGORY_EXPRESSION.not_in(criteria.excluded_categories)
    if criteria.brands:
        yield BRAND_EXPRESSION.in_(criteria.brands)
    if criteria.excluded_brands:
        yield or_(BRAND_EXPRESSION == "", BRAND_EXPRESSION.not_in(criteria.excluded_brands))
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
    return and_(*limits)


def _build_number_expression(name: str) -> ColumnElement[Any]:
    if name in COLUMN_KEYS:
        column: ColumnElement[Any] = getattr(Product, name)
        return column
    value = col(Product.attributes)[name]
    # CASE keeps PostgreSQL from casting what is no number, in whatever order it evaluates conditions.
    return case((func.jsonb_typeof(value) == "number", cast(value.astext, Numeric)), else_=None)


def _build_feature_condition(feature: Feature) -> ColumnElement[bool]:
    stated = or_(false(), *(contains_words(words) for words in feature.split_wordings()))
    if feature.denying_attribute is None:
        return stated
    return and_(stated, col(Product.attributes)[feature.denying_attribute].is_distinct_from(JSON_FALSE))


def contains_words(words: list[str]) -> ColumnElement[bool]:
    """Whether a product states all of `words`; by the index on them."""
    return col(Product.words).contains(cast(array(words), ARRAY(Text))) if words else true()


ENGLISH_CONFIG: ColumnElement[Any] = literal_column("'english'::regconfig")
RANK_BY_LOG_LENGTH = 1


@dataclass(frozen=True, slots=True)
class TextMatch:
    """How a product answers to the terms and preferences: `matches` any of them, `count` of them, and how well."""

    matches: ColumnElement[bool]
    count: ColumnElement[int]
    rank: ColumnElement[float]


def build_text_match(criteria: Criteria) -> TextMatch | None:
    """None when no words were asked for."""
    phrases = {" ".join(words): words for words in map(words_of, (*criteria.terms, *criteria.preferences)) if words}
    if not phrases:
        return None
    told = [
        (col(Product.search).op("@@")(_build_text_query(phrase)), contains_words(words))
        for phrase, words in phrases.items()
    ]
    any_of_them = reduce(lambda left, right: left.op("||")(right), map(_build_text_query, phrases))
    return TextMatch(
        matches=or_(col(Product.search).op("@@")(any_of_them), *(stated for _, stated in told)),
        count=reduce(add, (case((condition, 1), else_=0) for conditions in told for condition in conditions)),
        rank=func.ts_rank_cd(col(Product.search), any_of_them, RANK_BY_LOG_LENGTH),
    )


def _build_text_query(phrase: str) -> ColumnElement[Any]:
    query: ColumnElement[Any] = func.plainto_tsquery(ENGLISH_CONFIG, phrase)
    return query


def build_requested_order(order: SortOrder) -> list[ColumnElement[Any]]:
    """The order that the shopper asked for, nothing when that is relevance."""
    by_order: dict[SortOrder, list[ColumnElement[Any]]] = {
        SortOrder.CHEAPEST: [col(Product.price).asc()],
        SortOrder.MOST_EXPENSIVE: [col(Product.price).desc()],
        SortOrder.BEST_RATED: [col(Product.rating).desc().nulls_last(), col(Product.rating_count).desc().nulls_last()],
    }
    return by_order.get(order, [])


def build_order(order: SortOrder) -> list[ColumnElement[Any]]:
    """What comes first where words decide nothing: the order asked for, else the best rated. Never a tie."""
    return [*(build_requested_order(order) or build_requested_order(SortOrder.BEST_RATED)), col(Product.id).asc()]
