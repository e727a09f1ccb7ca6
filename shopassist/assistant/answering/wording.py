"""Attributes, limits and criteria in words."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from shopassist.assistant.parsing.lexicon import WISH_WORDS
from shopassist.assistant.parsing.vocabulary import VocabularyIndex
from shopassist.catalog.attributes import (
    ATTRIBUTE_PREFERENCES,
    ATTRIBUTE_WORDINGS,
    BOUND_UNITS,
    HIDDEN_ATTRIBUTE_WORDS,
    UNIT_SUFFIXES,
)
from shopassist.catalog.criteria import Bound, Criteria, SortOrder
from shopassist.catalog.currencies import format_money
from shopassist.catalog.models import ABSENT_VALUES, Product, words_of
from shopassist.query.models import PriceRange, ProductCriteria

MAX_FACTS = 5
GB_PER_TB = 1000
GRAMS_PER_KG = 1000
MAX_FACT_LENGTH = 80


def format_number(value: object) -> str:
    """A number without needless zeros."""
    plain = Decimal(str(value))
    return f"{plain.quantize(Decimal(1))}" if plain == plain.to_integral_value() else f"{plain.normalize():f}"


def describe_attribute(key: str, value: object) -> str:
    """One attribute in words; an empty text where it says nothing."""
    if value is None or value is False or str(value).strip().lower() in ABSENT_VALUES:
        return ""
    if value is True:
        return _capitalise(key.replace("_", " "))
    shown = format_number(value) if isinstance(value, int | float | Decimal) else str(value).strip()
    if key == "storage_gb" and isinstance(value, int | float) and value >= GB_PER_TB:
        return f"{format_number(Decimal(str(value)) / GB_PER_TB)} TB storage"
    if key == "weight_g" and isinstance(value, int | float) and value >= GRAMS_PER_KG:
        return f"{format_number(Decimal(str(value)) / GRAMS_PER_KG)} kg"
    if key in ATTRIBUTE_WORDINGS:
        return (
            _capitalise(ATTRIBUTE_WORDINGS[key].format(shown))
            if key in {"type", "connection"}
            else ATTRIBUTE_WORDINGS[key].format(shown)
        )
    return _describe_unlisted_attribute(key, shown, isinstance(value, int | float))


def select_facts(product: Product, criteria: Criteria) -> list[str]:
    """Up to five facts: those that were asked for first, then those that matter most."""
    attributes = {
        key: value
        for key, value in product.attributes.items()
        if not HIDDEN_ATTRIBUTE_WORDS.intersection(key.split("_"))
    }
    wanted = {word for feature in criteria.features for words in feature.alternatives() for word in words}
    wanted |= {word for term in criteria.terms for word in words_of(term)}
    limited = {bound.name for bound in criteria.bounds}
    known = list(ATTRIBUTE_WORDINGS)

    def place(key: str) -> tuple[bool, bool, int]:
        words = set(words_of(f"{key.replace('_', ' ')} {attributes[key]}"))
        return (key not in limited, not wanted & words, known.index(key) if key in known else len(known))

    facts = [_describe_fact(attributes, key) for key in sorted(attributes, key=place)]
    told = list(dict.fromkeys(fact for fact in facts if fact and len(fact) <= MAX_FACT_LENGTH))[:MAX_FACTS]
    return told or [sentence for sentence in [_first_sentence(product.description)] if sentence]


def _describe_fact(attributes: Mapping[str, Any], key: str) -> str:
    display = attributes.get("display_type") or attributes.get("panel")
    if key == "screen_inches" and display:
        return f"{format_number(attributes[key])}-inch {display} display"
    if key in {"display_type", "panel"} and "screen_inches" in attributes:
        return ""
    return describe_attribute(key, attributes[key])


def _describe_unlisted_attribute(key: str, shown: str, numeric: bool) -> str:
    name, _, unit = key.rpartition("_")
    if numeric and name and unit in UNIT_SUFFIXES:
        return f"{_capitalise(name.replace('_', ' '))}: {shown} {UNIT_SUFFIXES[unit]}"
    return f"{_capitalise(key.replace('_', ' ').strip())}: {shown}"


def _first_sentence(description: str | None) -> str:
    sentence = (description or "").strip().split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= MAX_FACT_LENGTH else f"{sentence[: MAX_FACT_LENGTH - 1].rstrip()}…"


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


RATING_NAMES = frozenset({"rating", "rating_count"})
SORT_WORDS = {SortOrder.CHEAPEST: "cheapest", SortOrder.DEAREST: "most expensive", SortOrder.BEST_RATED: "highly rated"}


def describe_bound(bound: Bound) -> str:
    """A limit as "8 GB RAM or more", "under 200 grams", "between 54.5 and 55.5 inches"."""
    unit = BOUND_UNITS.get(bound.name, bound.name.replace("_", " "))
    low = format_number(bound.minimum) if bound.minimum is not None else None
    high = format_number(bound.maximum) if bound.maximum is not None else None
    if low is not None and high is not None:
        return f"between {low} and {high} {unit}"
    if low is not None:
        return f"over {low} {unit}" if bound.exclusive else f"{low} {unit} or more"
    return f"under {high} {unit}" if bound.exclusive else f"{high} {unit} or less"


def describe_price_limits(criteria: Criteria) -> str:
    """The price limit as "up to ₹12,000"; empty without one."""
    low, high, currency = criteria.price_min, criteria.price_max, criteria.currency or ""
    if low is not None and high is not None:
        words = "from {} and up to {}" if low > high else "between {} and {}"
        return words.format(format_money(low, currency), format_money(high, currency))
    if high is not None:
        return f"up to {format_money(high, currency)}"
    return f"from {format_money(low, currency)}" if low is not None else ""


def describe_hard_criteria(criteria: Criteria, names: VocabularyIndex) -> list[str]:
    """Every hard criterion but category and price in words."""
    words = [" or ".join(names.spelling.get(brand, brand) for brand in criteria.brands)] if criteria.brands else []
    return words + _describe_features(criteria, names)


def product_noun(criteria: Criteria, said: str | None) -> str:
    """What the products are called in a sentence, in the plural."""
    if criteria.categories:
        return " or ".join(criteria.categories).replace("-", " ")
    return f"products called “{said}”" if said else "products"


def to_product_criteria(criteria: Criteria, said: str | None, names: VocabularyIndex) -> ProductCriteria:
    """The criteria in the shape of the HTTP API. A price in another currency than the market's is a feature."""
    own = criteria.currency in {None, names.currency}
    low, high = criteria.price_min, criteria.price_max
    features = _describe_features(criteria, names)
    if not own:
        features.append(describe_price_limits(criteria))
    if criteria.order in SORT_WORDS:
        features.append(SORT_WORDS[criteria.order])
    brand = " or ".join(names.spelling.get(brand, brand) for brand in criteria.brands)
    return ProductCriteria(
        category=_truncate(said or " or ".join(criteria.categories)),
        price_range=PriceRange(min=_to_float(low), max=_to_float(high)) if own and (low or high) else None,
        features=[feature for feature in (_truncate(f) for f in [*features, *_reparsable_wishes(criteria)]) if feature],
        brand=_truncate(brand),
        marketplace=criteria.marketplace,
    )


def _describe_features(criteria: Criteria, names: VocabularyIndex) -> list[str]:
    kind = criteria.kind.name if criteria.kind else None
    words = [" ".join(criteria.terms)] if criteria.terms else []
    words += [describe_bound(bound) for bound in criteria.bounds]
    words += [feature.name for feature in criteria.features if feature.name != kind]
    words += [f"without {feature.name}" for feature in criteria.excluded_features]
    words += [f"not {names.spelling.get(brand, brand)}" for brand in criteria.excluded_brands]
    return words + [f"not {category}" for category in criteria.excluded_categories]


def _reparsable_wishes(criteria: Criteria) -> list[str]:
    """Wishes that are wishes wherever they stand; others had their meaning from the sentence they stood in."""
    return [wish for wish in criteria.wishes if set(words_of(wish)) <= WISH_WORDS | ATTRIBUTE_PREFERENCES.keys()]


MAX_TEXT_LENGTH = 255


def _truncate(text: str) -> str | None:
    return text[:MAX_TEXT_LENGTH] or None


def _to_float(value: Decimal | None) -> float | None:
    return float(value) if value is not None else None
