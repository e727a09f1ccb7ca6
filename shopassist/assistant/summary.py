"""The answer in sentences."""

from collections.abc import Sequence
from typing import NamedTuple

from shopassist.assistant.near_misses import RATING_OBSTACLE, NearMissResult
from shopassist.assistant.parsing.grammar import ParsedQuestion
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.assistant.wording import describe_features, describe_price_limits
from shopassist.catalog.attributes import COLUMN_KEYS
from shopassist.catalog.currencies import find_currency, format_money
from shopassist.catalog.models import Criteria, Product, SortOrder, get_number
from shopassist.query.models import Recommendation

OFF_TOPIC_ANSWER = (
    "I can only help with finding products, and I could not find any in that message. Ask me, for example, for a kind "
    "of product with a price limit, a brand or features: "
    f"“5G phone under {format_money(15_000, 'INR')} with 8 GB RAM”."
)

SORT_REASONS = {SortOrder.CHEAPEST: "it has the lowest price", SortOrder.MOST_EXPENSIVE: "it is the most expensive"}


class SummaryInput(NamedTuple):
    """What was understood: the question, and the criteria that products meet. `note` describes corrected spelling."""

    question: ParsedQuestion
    criteria: Criteria
    names: VocabularyIndex
    note: str


def build_summary(
    understood: SummaryInput, products: Sequence[Product], shown: Sequence[Recommendation], count: str
) -> str:
    """Summarise an answer: what was understood, how many fit, the first and why, the others, the age of prices."""
    criteria = understood.criteria
    fits = "product fits" if count == "1" else "products fit"
    sentences = [understood.note, f"{_describe_question(understood)}: {count} {fits}."]
    dropped = [term for term in understood.question.criteria.terms if term not in criteria.terms]
    if dropped:
        sentences.append(f"None is described as “{' '.join(dropped)}”, so that only moved products up.")
    reason = SORT_REASONS.get(criteria.sort_order) or " and ".join(map(_to_clause, shown[0].pros[:2]))
    sentences.append(f"My first pick is {_with_price(shown[0])}: {reason}.")
    others = " and ".join(f"{_with_price(product)} ({_to_clause(product.pros[0])})" for product in shown[1:])
    if others:
        sentences.append(f"{'Alternatives are' if shown[2:] else 'An alternative is'} {others}.")
    dated = [product.price_as_of for product in products if product.price_as_of is not None]
    if dated:
        sentences.append(f"Prices are indicative, the oldest as of {min(dated):%B %Y}: check the shop before buying.")
    if criteria.sort_order is SortOrder.BEST_RATED and all(product.rating is None for product in products):
        sentences.append("The catalogue has no ratings for these, so they are ordered by what they offer instead.")
    return " ".join(filter(None, sentences))


def build_empty_summary(understood: SummaryInput, near: NearMissResult) -> str:
    """Explain why nothing fits."""
    what = "nothing else" if understood.question.excluded_products else "nothing"
    sentences = [
        understood.note,
        f"{_describe_question(understood)}: {what} in the catalogue fits.",
        _describe_obstacles(understood.criteria, near),
    ]
    if near.products:
        sentences.append("The nearest products are listed with what each of them misses; nothing was charged.")
    return " ".join(filter(None, sentences))


def _describe_question(understood: SummaryInput) -> str:
    criteria, noun = understood.criteria, understood.question.noun_text
    if criteria.categories:
        noun = " or ".join(criteria.categories).replace("-", " ")
    else:
        noun = f"products called “{noun}”" if noun else "products"
    parts = [
        understood.names.spell_brands(criteria.brands),
        *describe_features(criteria, understood.names),
        describe_price_limits(criteria),
        f"sold on {criteria.marketplace}" if criteria.marketplace else "",
    ]
    stated = ", ".join(filter(None, parts))
    return f"You asked for {noun}" + (f" ({stated})" if stated else "")


def _describe_obstacles(criteria: Criteria, near: NearMissResult) -> str:
    """Describe what prevents an answer: contradicting limits, unknown words, or other obstacles."""
    low, high = criteria.price_min, criteria.price_max
    if low is not None and high is not None and low > high:
        return f"The limits contradict each other: no price is both {describe_price_limits(criteria)}."
    if not near.unknown_terms:
        return _describe_obstacle(criteria, near)
    words = " or ".join(f"“{term}”" for term in near.unknown_terms)
    them = "it" if len(near.unknown_terms) == 1 else "them"
    counts = [obstacle.count for obstacle in near.obstacles if obstacle.name == "terms"]
    outcome = f": without {them} {counts[0]} would fit" if counts else ""
    return f"No product in the catalogue states {words}{outcome}."


def _describe_obstacle(criteria: Criteria, near: NearMissResult) -> str:
    currencies = sorted({p.currency for p in near.products if p.currency and p.currency != criteria.currency})
    if describe_price_limits(criteria) and currencies and all(p.currency != criteria.currency for p in near.products):
        stored = " and ".join(find_currency(currency).name or currency for currency in currencies)
        asked = find_currency(criteria.currency).name or criteria.currency
        return f"The obstacle is the currency: prices here are in {stored}, and I do not compare them with {asked}."
    if not near.obstacles:
        several = "Several criteria together stand in the way."
        return several if near.products else "The catalogue has nothing of that kind."
    rated = [bound.name for bound in criteria.bounds if bound.name in COLUMN_KEYS]
    for obstacle in near.obstacles:
        values = (get_number(product, name) for product in obstacle.products for name in rated)
        if obstacle.name == RATING_OBSTACLE and all(value is None for value in values):
            products = "product" if obstacle.count == "1" else "products"
            return (
                f"The obstacle is {obstacle.description}: the rating is not known for the {obstacle.count} "
                f"otherwise fitting {products}."
            )
    words = [obstacle.description for obstacle in near.obstacles]
    if len(words) == 1:
        return f"The obstacle is {words[0]}: without it {near.obstacles[0].count} would fit."
    return f"The obstacle is any one of these: {'; '.join(words)}."


def _with_price(product: Recommendation) -> str:
    return f"{product.title} at {format_money(product.price, product.currency)}"


def _to_clause(sentence: str) -> str:
    """Turn a pro or con into a clause, without its value in brackets."""
    plain = sentence.partition(" (")[0]
    return plain if plain[:1].isdigit() or plain[1:2].isupper() else plain[:1].lower() + plain[1:]
