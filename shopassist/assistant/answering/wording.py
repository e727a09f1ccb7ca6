"""Attributes, limits and criteria in words."""

from decimal import Decimal

from shopassist.assistant.parsing.lexicon import WISH_WORDS
from shopassist.assistant.parsing.vocabulary import VocabularyIndex
from shopassist.catalog.attributes import BY_KEY, FACT_KEYS, HIDDEN_WORDS, PREFERENCES, QUALIFIER_KEYS, UNIT_SUFFIXES
from shopassist.catalog.criteria import Bound, Criteria, SortOrder
from shopassist.catalog.currencies import format_money
from shopassist.catalog.models import ABSENT_VALUES, Product, words_of
from shopassist.query.models import PriceRange, ProductCriteria

MAX_FACTS = 5
MAX_FACT_LENGTH = 80
MAX_TEXT_LENGTH = 255
SORT_WORDS = {
    SortOrder.CHEAPEST: "cheapest",
    SortOrder.MOST_EXPENSIVE: "most expensive",
    SortOrder.BEST_RATED: "highly rated",
}


def format_number(value: object) -> str:
    """Format a number without trailing zeros."""
    plain = Decimal(str(value))
    return f"{plain.quantize(Decimal(1))}" if plain == plain.to_integral_value() else f"{plain.normalize():f}"


def describe_attribute(key: str, value: object, qualifier: object = None) -> str:
    """Describe an attribute; empty if the value says that there is none. `qualifier`: a value of its qualifiers."""
    if value is None or value is False or str(value).strip().lower() in ABSENT_VALUES:
        return ""
    if value is True:
        return _capitalise(key.replace("_", " "))
    text = format_number(value) if isinstance(value, int | float | Decimal) else str(value).strip()
    row = BY_KEY.get(key)
    if row is None or not row.fact:
        return _describe_unlisted_attribute(key, text, numeric=isinstance(value, int | float))
    if qualifier:
        return row.qualified_fact.format(text, qualifier)
    if row.large and isinstance(value, int | float) and value >= row.large[0]:
        return row.large[1].format(format_number(Decimal(str(value)) / row.large[0]))
    fact = row.fact.format(text)
    return _capitalise(fact) if row.capitalised else fact


def _describe_unlisted_attribute(key: str, text: str, *, numeric: bool) -> str:
    name, _, unit = key.rpartition("_")
    if numeric and name and unit in UNIT_SUFFIXES:
        return f"{_capitalise(name.replace('_', ' '))}: {text} {UNIT_SUFFIXES[unit]}"
    return f"{_capitalise(key.replace('_', ' ').strip())}: {text}"


def select_facts(product: Product, criteria: Criteria) -> list[str]:
    """Return up to five facts about a product: first those that were asked for, then in the order of the table."""
    attributes = {
        key: value for key, value in product.attributes.items() if not HIDDEN_WORDS.intersection(key.split("_"))
    }
    asked = {word for feature in criteria.features for words in feature.split_wordings() for word in words}
    asked |= {word for term in criteria.terms for word in words_of(term)}
    limited = {bound.name for bound in criteria.bounds}

    def sort_key(key: str) -> tuple[bool, bool, int]:
        words = set(words_of(f"{key.replace('_', ' ')} {attributes[key]}"))
        return key not in limited, not asked & words, FACT_KEYS.index(key) if key in FACT_KEYS else len(FACT_KEYS)

    facts = []
    for key in sorted(attributes, key=sort_key):
        if QUALIFIER_KEYS.get(key) not in attributes:
            row = BY_KEY.get(key)
            qualifiers = (attributes.get(qualifier) for qualifier in (row.qualifiers if row else ()))
            facts.append(describe_attribute(key, attributes[key], next(filter(None, qualifiers), None)))
    facts = list(dict.fromkeys(fact for fact in facts if fact and len(fact) <= MAX_FACT_LENGTH))[:MAX_FACTS]
    return facts or [sentence for sentence in [_first_sentence(product.description)] if sentence]


def _first_sentence(description: str | None) -> str:
    sentence = (description or "").strip().split(". ")[0].rstrip(".")
    return sentence if len(sentence) <= MAX_FACT_LENGTH else f"{sentence[: MAX_FACT_LENGTH - 1].rstrip()}…"


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def describe_bound(bound: Bound) -> str:
    """Describe a limit: "8 GB RAM or more", "under 200 grams", "between 54.5 and 55.5 inches"."""
    row = BY_KEY.get(bound.name)
    unit = row.limit if row and row.limit else bound.name.replace("_", " ")
    low = format_number(bound.minimum) if bound.minimum is not None else None
    high = format_number(bound.maximum) if bound.maximum is not None else None
    if low is not None and high is not None:
        return f"between {low} and {high} {unit}"
    if low is not None:
        return f"over {low} {unit}" if bound.exclusive else f"{low} {unit} or more"
    return f"under {high} {unit}" if bound.exclusive else f"{high} {unit} or less"


def describe_price_limits(criteria: Criteria) -> str:
    """Describe the price limits, as "up to ₹12,000"; empty without any."""
    low, high, currency = criteria.price_min, criteria.price_max, criteria.currency or ""
    if low is not None and high is not None:
        wording = "from {} and up to {}" if low > high else "between {} and {}"
        return wording.format(format_money(low, currency), format_money(high, currency))
    if high is not None:
        return f"up to {format_money(high, currency)}"
    return f"from {format_money(low, currency)}" if low is not None else ""


def describe_hard_criteria(criteria: Criteria, names: VocabularyIndex) -> list[str]:
    """Describe every hard criterion but the category, the price and the shop."""
    brands = names.spell_brands(criteria.brands)
    return [*([brands] if brands else []), *_describe_features(criteria, names)]


def describe_noun(criteria: Criteria, noun_text: str | None) -> str:
    """Return the plural noun for the products in a sentence."""
    if criteria.categories:
        return " or ".join(criteria.categories).replace("-", " ")
    return f"products called “{noun_text}”" if noun_text else "products"


def to_product_criteria(criteria: Criteria, noun_text: str | None, names: VocabularyIndex) -> ProductCriteria:
    """Convert criteria to those of the HTTP API, where a price in another than the market's currency is a feature."""
    in_market_currency = criteria.currency in {None, names.currency}
    low, high = criteria.price_min, criteria.price_max
    features = _describe_features(criteria, names)
    if not in_market_currency:
        features.append(describe_price_limits(criteria))
    if criteria.sort_order in SORT_WORDS:
        features.append(SORT_WORDS[criteria.sort_order])
    # Only wishes that are read as wishes in any sentence can be sent back by a client.
    features += [wish for wish in criteria.preferences if set(words_of(wish)) <= WISH_WORDS | PREFERENCES.keys()]
    return ProductCriteria(
        category=_truncate(noun_text or " or ".join(criteria.categories)),
        price_range=PriceRange(min=_to_float(low), max=_to_float(high))
        if in_market_currency and (low or high)
        else None,
        features=[text for feature in features if (text := _truncate(feature))],
        brand=_truncate(names.spell_brands(criteria.brands)),
        marketplace=criteria.marketplace,
    )


def _describe_features(criteria: Criteria, names: VocabularyIndex) -> list[str]:
    kind = criteria.category_words.name if criteria.category_words else None
    return [
        *([" ".join(criteria.terms)] if criteria.terms else []),
        *(describe_bound(bound) for bound in criteria.bounds),
        *(feature.name for feature in criteria.features if feature.name != kind),
        *(f"without {feature.name}" for feature in criteria.excluded_features),
        *(f"not {names.spell_brand(brand)}" for brand in criteria.excluded_brands),
        *(f"not {category}" for category in criteria.excluded_categories),
    ]


def _truncate(text: str) -> str | None:
    return text[:MAX_TEXT_LENGTH] or None


def _to_float(value: Decimal | None) -> float | None:
    return float(value) if value is not None else None
