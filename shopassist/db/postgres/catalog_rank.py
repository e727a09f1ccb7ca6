"""What comes first among the products that meet the criteria.

A word that title, brand, category or description hold counts twice, one that only an attribute states once; then cover
density over the logarithm of the length decides. Of what PostgreSQL offers this did best on 63 judged queries
(benchmarks/relevance.py), better than density alone and than weighing words by their rarity.
"""

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal_column, or_
from sqlmodel import col

from shopassist.db.postgres.catalog_filter import states
from shopassist.models import Product
from shopassist.models.criteria import Criteria, Order
from shopassist.models.words import words_of

ENGLISH: ColumnElement[Any] = literal_column("'english'::regconfig")
BY_LOGARITHM_OF_LENGTH = 1


@dataclass(frozen=True, slots=True)
class Matching:
    """How a product answers to the terms and wishes: `matches` any of them, `count` of them, and how well."""

    matches: ColumnElement[bool]
    count: ColumnElement[int]
    rank: ColumnElement[float]


def matching(criteria: Criteria) -> Matching | None:
    """None when no words were asked for."""
    phrases = {" ".join(words): words for words in map(words_of, (*criteria.terms, *criteria.wishes)) if words}
    if not phrases:
        return None
    told = [(col(Product.search).op("@@")(_query(phrase)), states(words)) for phrase, words in phrases.items()]
    any_of_them = reduce(lambda left, right: left.op("||")(right), map(_query, phrases))
    return Matching(
        matches=or_(col(Product.search).op("@@")(any_of_them), *(stated for _, stated in told)),
        count=reduce(add, (case((condition, 1), else_=0) for conditions in told for condition in conditions)),
        rank=func.ts_rank_cd(col(Product.search), any_of_them, BY_LOGARITHM_OF_LENGTH),
    )


def _query(phrase: str) -> ColumnElement[Any]:
    query: ColumnElement[Any] = func.plainto_tsquery(ENGLISH, phrase)
    return query


def wanted(order: Order) -> list[ColumnElement[Any]]:
    """The order that the shopper asked for, nothing when that is relevance."""
    by_order: dict[Order, list[ColumnElement[Any]]] = {
        Order.CHEAPEST: [col(Product.price).asc()],
        Order.DEAREST: [col(Product.price).desc()],
        Order.BEST_RATED: [col(Product.rating).desc().nulls_last(), col(Product.rating_count).desc().nulls_last()],
    }
    return by_order.get(order, [])


def preferred(order: Order) -> list[ColumnElement[Any]]:
    """What comes first where words decide nothing: the order asked for, else the best rated. Never a tie."""
    return [*(wanted(order) or wanted(Order.BEST_RATED)), col(Product.id).asc()]
