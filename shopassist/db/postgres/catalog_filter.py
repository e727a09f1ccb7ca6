"""The hard criteria as SQL: the same products pass as by `Criteria.misses`, which stays the one definition."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Numeric, and_, case, cast, false, func, literal_column, not_, or_, true
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.types import Text
from sqlmodel import col

from shopassist.models import Product
from shopassist.models.catalog import BRAND_KEY, CATEGORY_KEY
from shopassist.models.criteria import Bound, Criteria, Feature
from shopassist.models.words import words_of

BRAND: ColumnElement[str] = literal_column(BRAND_KEY)
CATEGORY: ColumnElement[str] = literal_column(CATEGORY_KEY)
FALSE: ColumnElement[Any] = literal_column("'false'::jsonb")
LINK_HOST = func.split_part(func.lower(col(Product.link)), "/", 3)


def conditions(criteria: Criteria) -> list[ColumnElement[bool]]:
    """What a row must meet so that `criteria.misses` finds nothing."""
    return [
        *_identity(criteria),
        *_price(criteria),
        *(_bound(bound) for bound in criteria.bounds),
        *(_feature(feature) for feature in criteria.features),
        *(not_(_feature(feature)) for feature in criteria.excluded_features),
        *(states(words_of(term)) for term in criteria.terms),
    ]


def _identity(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    if criteria.categories:
        kind = and_(CATEGORY == "", _feature(criteria.kind)) if criteria.kind else false()
        yield or_(CATEGORY.in_(criteria.categories), kind)
    if criteria.excluded_categories:
        yield CATEGORY.not_in(criteria.excluded_categories)
    if criteria.brands:
        yield BRAND.in_(criteria.brands)
    if criteria.excluded_brands:
        yield or_(BRAND == "", BRAND.not_in(criteria.excluded_brands))
    if criteria.marketplace:
        yield func.strpos(LINK_HOST, criteria.marketplace.lower()) > 0


def _price(criteria: Criteria) -> Iterator[ColumnElement[bool]]:
    price = col(Product.price)
    yield price.is_not(None)
    if criteria.price_min is not None:
        yield price >= criteria.price_min
    if criteria.price_max is not None:
        yield price <= criteria.price_max
    if criteria.currency and (criteria.price_min is not None or criteria.price_max is not None):
        yield col(Product.currency) == criteria.currency


def _bound(bound: Bound) -> ColumnElement[bool]:
    number = _number(bound.name)
    limits: list[ColumnElement[bool]] = [number.is_not(None)]
    if bound.minimum is not None:
        limits.append(number > bound.minimum if bound.exclusive else number >= bound.minimum)
    if bound.maximum is not None:
        limits.append(number < bound.maximum if bound.exclusive else number <= bound.maximum)
    return and_(*limits)


def _number(name: str) -> ColumnElement[Any]:
    if name in {"rating", "rating_count"}:
        column: ColumnElement[Any] = getattr(Product, name)
        return column
    value = col(Product.attributes)[name]
    # CASE keeps PostgreSQL from casting what is no number, in whatever order it evaluates conditions.
    return case((func.jsonb_typeof(value) == "number", cast(value.astext, Numeric)), else_=None)


def _feature(feature: Feature) -> ColumnElement[bool]:
    stated = or_(false(), *(states(words) for words in feature.alternatives()))
    if feature.attribute is None:
        return stated
    return and_(stated, col(Product.attributes)[feature.attribute].is_distinct_from(FALSE))


def states(words: list[str]) -> ColumnElement[bool]:
    """Whether a product states all of `words`; by the index on them."""
    return col(Product.words).contains(cast(array(words), ARRAY(Text))) if words else true()
