"""The answer in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

from shopassist.assistant.answering.near_misses import RATING_OBSTACLE, NearMissResult
from shopassist.assistant.answering.wording import describe_hard_criteria, describe_noun, describe_price_limits
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
    """What was understood: the criteria that products meet, the shopper's noun, the criteria with all terms.

    `note` describes corrections of spelling. `excludes_shown`: products that were shown before are excluded.
    """

    criteria: Criteria
    noun_text: str | None
    names: VocabularyIndex
    stated_criteria: Criteria
    note: str = ""
    excludes_shown: bool = False


def build_summary(
    understood: SummaryInput, products: Sequence[Product], shown: Sequence[Recommendation], count: str
) -> str:
    """Summarise an answer: what was understood, how many fit, the first and why, the others, the age of prices."""
    criteria = understood.criteria
    sentences = [understood.note] if understood.note else []
    sentences.append(f"{_describe_question(understood)}: {count} product{' fits' if count == '1' else 's fit'}.")
    dropped = [term for term in understood.stated_criteria.terms if term not in criteria.terms]
    if dropped:
        sentences.append(f"None is described as “{' '.join(dropped)}”, so that only moved products up.")
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


def build_empty_summary(understood: SummaryInput, near: NearMissResult) -> str:
    """Explain why nothing fits."""
    what = "nothing else" if understood.excludes_shown else "nothing"
    sentences = [
        understood.note,
        f"{_describe_question(understood)}: {what} in the catalogue fits.",
        *_describe_obstacles(understood.criteria, near),
    ]
    if near.products:
        sentences.append("The nearest products are listed with what each of them misses; nothing was charged.")
    return " ".join(sentence for sentence in sentences if sentence)


def _describe_question(understood: SummaryInput) -> str:
    criteria = understood.criteria
    parts = describe_hard_criteria(criteria, understood.names)
    price = describe_price_limits(criteria)
    if price:
        parts.append(price)
    if criteria.marketplace:
        parts.append(f"sold on {criteria.marketplace}")
    noun = describe_noun(criteria, understood.noun_text)
    return f"You asked for {noun}" + (f" ({', '.join(parts)})" if parts else "")


def _describe_obstacles(criteria: Criteria, near: NearMissResult) -> list[str]:
    """Describe what prevents an answer: contradicting limits, unknown words, or other obstacles."""
    low, high = criteria.price_min, criteria.price_max
    if low is not None and high is not None and low > high:
        return [f"The limits contradict each other: no price is both {describe_price_limits(criteria)}."]
    if not near.unknown_terms:
        return [_describe_obstacle(criteria, near)]
    words = " or ".join(f"“{term}”" for term in near.unknown_terms)
    obstacle = next((obstacle for obstacle in near.obstacles if obstacle.name == "terms"), None)
    outcome = (
        f": without {'it' if len(near.unknown_terms) == 1 else 'them'} {obstacle.count} would fit" if obstacle else ""
    )
    return [f"No product in the catalogue states {words}{outcome}."]


def _describe_obstacle(criteria: Criteria, near: NearMissResult) -> str:
    currencies = sorted({p.currency for p in near.products if p.currency and p.currency != criteria.currency})
    if describe_price_limits(criteria) and currencies and all(p.currency != criteria.currency for p in near.products):
        stored = " and ".join(find_currency(currency).name or currency for currency in currencies)
        asked = find_currency(criteria.currency).name or criteria.currency
        return f"The obstacle is the currency: prices here are in {stored}, and I do not compare them with {asked}."
    if not near.obstacles:
        return (
            "Several criteria together stand in the way."
            if near.products
            else "The catalogue has nothing of that kind."
        )
    for obstacle in near.obstacles:
        rated = [b.name for b in criteria.bounds if b.name in COLUMN_KEYS]
        values = (get_numeric_value(product, name) for product in obstacle.products for name in rated)
        if obstacle.name == RATING_OBSTACLE and all(value is None for value in values):
            return (
                f"The obstacle is {obstacle.description}: the rating is not known for the {obstacle.count} "
                f"otherwise fitting product{'' if obstacle.count == '1' else 's'}."
            )
    words = [obstacle.description for obstacle in near.obstacles]
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
    """Turn a pro or con into a clause, without its value in brackets."""
    plain = sentence.partition(" (")[0]
    return plain if plain[:1].isdigit() or plain[1:2].isupper() else plain[:1].lower() + plain[1:]
