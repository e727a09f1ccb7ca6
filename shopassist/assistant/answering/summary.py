"""The answer in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from shopassist.assistant.answering.near_misses import RATING_OBSTACLE, NearMissResult
from shopassist.assistant.answering.wording import (
    describe_hard_criteria,
    describe_noun,
    describe_price_limits,
)
from shopassist.assistant.parsing.vocabulary import VocabularyIndex
from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.catalog.criteria import Criteria, SortOrder, get_numeric_value
from shopassist.catalog.currencies import find_currency, format_money
from shopassist.catalog.models import Product
from shopassist.query.models import Recommendation

OFF_TOPIC_ANSWER = (
    "I can only help with finding products, and I could not find any in that message. Ask me, for example, for a kind "
    "of product with a price limit, a brand or features: "
    f"“5G phone under {format_money(15_000, 'INR')} with 8 GB RAM”."
)

SORT_REASONS = {SortOrder.CHEAPEST: "it has the lowest price", SortOrder.MOST_EXPENSIVE: "it is the most expensive"}


@dataclass(frozen=True, slots=True)
class SummaryInput:
    """What was understood: the criteria that were met, the noun that was said, and the criteria as first stated.

    `note` tells how misspelt words were read; `again` says that products were shown before and are not wanted.
    """

    criteria: Criteria
    noun_text: str | None
    names: VocabularyIndex
    stated_criteria: Criteria
    note: str = ""
    excludes_shown: bool = False


def build_summary(told: SummaryInput, products: Sequence[Product], shown: Sequence[Recommendation], count: str) -> str:
    """What was understood, how many fit, which is first and why, how the others differ, how old the prices are."""
    criteria = told.criteria
    sentences = [told.note] if told.note else []
    sentences.append(f"{_describe_question(told)}: {count} product{' fits' if count == '1' else 's fit'}.")
    given_up = [term for term in told.stated_criteria.terms if term not in criteria.terms]
    if given_up:
        sentences.append(f"None is described as “{' '.join(given_up)}”, so that only moved products up.")
    first = shown[0]
    sentences.append(f"My first pick is {_with_price(first)}: {_describe_reason(first, criteria)}.")
    if len(shown) > 1:
        sentences.append(f"{'An alternative is' if len(shown) == 2 else 'Alternatives are'} {_list_others(shown[1:])}.")  # noqa: PLR2004
    dated = [product.price_as_of for product in products if product.price_as_of is not None]
    if dated:
        sentences.append(f"Prices are indicative, the oldest as of {min(dated):%B %Y}: check the shop before buying.")
    if criteria.sort_order is SortOrder.BEST_RATED and all(product.rating is None for product in products):
        sentences.append("The catalogue has no ratings for these, so they are ordered by what they offer instead.")
    return " ".join(sentences)


def build_empty_summary(told: SummaryInput, near: NearMissResult) -> str:
    """Why nothing fits, and what the near misses are."""
    what = "nothing else" if told.excludes_shown else "nothing"
    sentences = [
        told.note,
        f"{_describe_question(told)}: {what} in the catalogue fits.",
        *_describe_obstacles(told.criteria, near),
    ]
    if near.products:
        sentences.append("The nearest products are listed with what each of them misses; nothing was charged.")
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_question(told: SummaryInput) -> str:
    criteria = told.criteria
    parts = describe_hard_criteria(criteria, told.names)
    price = describe_price_limits(criteria)
    if price:
        parts.append(price)
    if criteria.marketplace:
        parts.append(f"sold on {criteria.marketplace}")
    noun = describe_noun(criteria, told.noun_text)
    return f"You asked for {noun}" + (f" ({', '.join(parts)})" if parts else "")


def _describe_obstacles(criteria: Criteria, near: NearMissResult) -> list[str]:
    """What stands in the way: words that nothing states, limits that exclude each other, or what `_obstacle` finds."""
    low, high, currency = criteria.price_min, criteria.price_max, criteria.currency or ""
    if low is not None and high is not None and low > high:
        limits = f"from {format_money(low, currency)} and up to {format_money(high, currency)}"
        return [f"The limits contradict each other: no price is both {limits}."]
    if not near.unknown:
        return [_describe_obstacle(criteria, near)]
    words = " or ".join(f"“{term}”" for term in near.unknown)
    without = next((obstacle for obstacle in near.obstacles if obstacle.name == "terms"), None)
    freed = f": without {'it' if len(near.unknown) == 1 else 'them'} {without.count} would fit" if without else ""
    return [f"No product in the catalogue states {words}{freed}."]


def _describe_obstacle(criteria: Criteria, near: NearMissResult) -> str:
    currencies = sorted({p.currency for p in near.products if p.currency and p.currency != criteria.currency})
    if describe_price_limits(criteria) and currencies and all(p.currency != criteria.currency for p in near.products):
        there = " and ".join(find_currency(currency).name or currency for currency in currencies)
        mine = find_currency(criteria.currency).name or criteria.currency
        return f"The obstacle is the currency: prices here are in {there}, and I do not compare them with {mine}."
    if not near.obstacles:
        return (
            "Several criteria together stand in the way."
            if near.products
            else "The catalogue has nothing of that kind."
        )
    for obstacle in near.obstacles:
        rated = [b.name for b in criteria.bounds if b.name in COLUMN_KEYS]
        if obstacle.name == RATING_OBSTACLE and all(
            get_numeric_value(p, n) is None for p in obstacle.products for n in rated
        ):
            return (
                f"The obstacle is {obstacle.words}: the rating is not known for the {obstacle.count} otherwise fitting "
                f"product{'' if obstacle.count == '1' else 's'}."
            )
    words = [obstacle.words for obstacle in near.obstacles]
    if len(words) == 1:
        return f"The obstacle is {words[0]}: without it {near.obstacles[0].count} would fit."
    return f"The obstacle is any one of these: {'; '.join(words)}."


def _with_price(product: Recommendation) -> str:
    return f"{product.title} at {format_money(product.price, product.currency)}"


def _describe_reason(product: Recommendation, criteria: Criteria) -> str:
    if criteria.sort_order in SORT_REASONS:
        return SORT_REASONS[criteria.sort_order]
    return " and ".join(_to_clause(pro) for pro in product.pros[:2])


def _list_others(products: Sequence[Recommendation]) -> str:
    return " and ".join(f"{_with_price(p)} ({_to_clause(p.pros[0])})" for p in products)


def _to_clause(sentence: str) -> str:
    """A pro or con inside a sentence: its figure in brackets is told in the list."""
    plain = sentence.partition(" (")[0]
    return plain if plain[:1].isdigit() or plain[1:2].isupper() else plain[:1].lower() + plain[1:]
