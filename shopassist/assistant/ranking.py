"""Deterministic ranking of the products that meet the criteria."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

from shopassist.assistant.parsing.lexicon import ACCESSORY_WORDS, DEVICE_NOUNS, PRODUCT_LINES
from shopassist.catalog.attributes import PREFERENCES, RANKED_KEYS
from shopassist.catalog.models import Criteria, Product, SortOrder, words_of

ASKED_WEIGHT = 2.0
PREFERRED_WEIGHT = 6.0
PRICE_WEIGHT = 0.4
PRICE_WEIGHT_IN_BUDGET = 0.25
"""With a budget, value counts more than savings."""
TYPICAL_RATING = Decimal("3.5")
TYPICAL_COUNT = 20
"""Ratings are averaged with this many typical ones, so that five stars of one buyer count little."""

MIN_DEVICE_ATTRIBUTES = 15

VARIANT_SUFFIX = re.compile(r"\s*[(\[][^)\]]*[)\]]")
Score = Callable[[Product], float]
_cached_words = functools.lru_cache(maxsize=4096)(words_of)


def rank_products(products: Sequence[Product], criteria: Criteria) -> list[Product]:
    """Return products, given in the order of their text match, with the best answer first."""
    place = {id(product): index for index, product in enumerate(products)}
    value = build_value_score(products, criteria)
    by_text = is_keyword_search(criteria)

    def key(product: Product) -> tuple[float | bool, ...]:
        uncategorised = bool(criteria.categories) and not product.category
        merit: tuple[float, ...] = (-value(product), place[id(product)])
        if by_text:
            merit = (
                -_title_match(product, criteria),
                # Without a category and with few attributes it may be an accessory.
                bool(criteria.features) and not product.category and len(product.attributes) < MIN_DEVICE_ATTRIBUTES,
                place[id(product)],
                -value(product),
            )
        return (
            uncategorised,
            *_sort_key(product, criteria.sort_order),
            -_count_stated_preferences(product, criteria),
            *merit,
        )

    return _move_variants_back(sorted(products, key=key))


def is_keyword_search(criteria: Criteria) -> bool:
    """Return whether the question has words but no numbers, so that the text match counts most."""
    numbers = criteria.bounds or criteria.price_min is not None or criteria.price_max is not None
    return not numbers and not (criteria.categories and not criteria.terms)


def build_value_score(products: Sequence[Product], criteria: Criteria) -> Score:
    """Return a function that scores the value for money of a product among these products from 0 to 1."""
    preferred = {name: sign for preference in criteria.preferences for name, sign in PREFERENCES.get(preference, ())}
    asked = {bound.name for bound in criteria.bounds if bound.minimum is not None}
    directions: dict[str, int] = dict.fromkeys(RANKED_KEYS, 1) | preferred
    facts = [(id(product), product.attributes) for product in products]
    scores = {
        name: _relative_scores([(key, a.get(name)) for key, a in facts], sign) for name, sign in directions.items()
    }
    weights = {name: 1.0 for name in directions if scores[name]}
    weights |= {name: ASKED_WEIGHT for name in asked if name in weights}
    weights |= {name: PREFERRED_WEIGHT for name in preferred if name in weights}
    total = sum(weights.values())
    cheapness = _relative_scores([(id(product), product.price) for product in products], -1)
    price_weight = PRICE_WEIGHT if criteria.price_max is None else PRICE_WEIGHT_IN_BUDGET

    def value(product: Product) -> float:
        merit = sum(weight * scores[name].get(id(product), 0.0) for name, weight in weights.items())
        return (1 - price_weight) * (merit / total if total else 0.5) + price_weight * cheapness.get(id(product), 0.5)

    return value


def _relative_scores(figures: Iterable[tuple[int, object]], sign: int) -> Mapping[int, float]:
    """Return scores from 0 (worst) to 1 (best) by id; empty if all values are equal."""
    values = {key: float(figure) * sign for key, figure in figures if isinstance(figure, int | float | Decimal)}
    distinct = sorted(set(values.values()))
    if len(distinct) <= 1:
        return {}
    places = {value: place / (len(distinct) - 1) for place, value in enumerate(distinct)}
    return {key: places[value] for key, value in values.items()}


def _sort_key(product: Product, order: SortOrder) -> tuple[float, ...]:
    price = float(product.price or 0)
    if order is SortOrder.CHEAPEST:
        return (price,)
    if order is SortOrder.MOST_EXPENSIVE:
        return (-price,)
    if order is SortOrder.BEST_RATED:
        count = product.rating_count if product.rating_count is not None else 1
        rating = product.rating if product.rating is not None else Decimal(0)
        return (-float((rating * count + TYPICAL_RATING * TYPICAL_COUNT) / (count + TYPICAL_COUNT)),)
    return ()


def _count_stated_preferences(product: Product, criteria: Criteria) -> int:
    """Count the preferences that the product states literally."""
    words = set(product.words)
    return sum(
        words.issuperset(words_of(preference)) for preference in criteria.preferences if preference not in PREFERENCES
    )


def _title_match(product: Product, criteria: Criteria) -> float:
    """Return the share of the terms and features that the title states."""
    title = set(words_of(f"{product.title} {product.brand or ''}"))
    named = [[words_of(term)] for term in criteria.terms] + [feature.split_wordings() for feature in criteria.features]
    return sum(any(title.issuperset(words) for words in wordings) for wordings in named) / len(named) if named else 0.0


def _move_variants_back(products: Sequence[Product]) -> list[Product]:
    """Move all but the first variant of each model to the end."""
    first = {VARIANT_SUFFIX.sub("", product.title).casefold(): id(product) for product in reversed(products)}
    kept = frozenset(first.values())
    return sorted(products, key=lambda product: id(product) not in kept)


DEVICE_WORDS = PRODUCT_LINES | {
    word for phrases in DEVICE_NOUNS.values() for phrase in phrases for word in words_of(phrase)[-1:]
}
_UNAMBIGUOUS_ACCESSORY_WORDS = ACCESSORY_WORDS - {"part", "button", "remote", "stylus", "accessory"}


def get_device_words(criteria: Criteria) -> frozenset[str] | None:
    """Return the words of a question for a device, which excludes accessories; None for other questions."""
    named = [*criteria.categories, *criteria.terms, *(w for f in criteria.features for w in f.wordings)]
    words = frozenset(words_of(" ".join(named)))
    return words if words & DEVICE_WORDS else None


def is_accessory(product: Product, device_words: frozenset[str] | None) -> bool:
    """Return whether a product is an accessory of the device with these words, by its category or else its title."""
    if device_words is None:
        return False
    named = _cached_words(product.category)[-1:] if product.category else _cached_words(product.title)
    return any(word in _UNAMBIGUOUS_ACCESSORY_WORDS and word not in device_words for word in named)
