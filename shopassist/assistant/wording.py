"""Attributes, limits, criteria, advantages and drawbacks in words."""

from collections.abc import Sequence
from decimal import Decimal

from shopassist.assistant.parsing.lexicon import WISH_WORDS
from shopassist.assistant.parsing.phrases import VocabularyIndex
from shopassist.catalog import attributes
from shopassist.catalog.attributes import BY_KEY, COMPARED, FACT_KEYS, Attribute, Comparison
from shopassist.catalog.currencies import find_currency, format_money
from shopassist.catalog.models import ABSENT_VALUES, Bound, Criteria, Product, SortOrder, get_number, words_of
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
    is_number = isinstance(value, int | float | Decimal)
    text = format_number(value) if is_number else str(value).strip()
    row = BY_KEY.get(key)
    if row is None or not row.fact:
        name, _, unit = key.rpartition("_")
        if is_number and name and unit in attributes.UNIT_SUFFIXES:
            key, text = name, f"{text} {attributes.UNIT_SUFFIXES[unit]}"
        return f"{_capitalise(key.replace('_', ' ').strip())}: {text}"
    if qualifier:
        return row.qualified_fact.format(text, qualifier)
    if row.large and is_number and (amount := Decimal(str(value))) >= row.large[0]:
        return row.large[1].format(format_number(amount / row.large[0]))
    fact = row.fact.format(text)
    return _capitalise(fact) if row.capitalised else fact


def select_facts(product: Product, criteria: Criteria) -> list[str]:
    """Return up to five facts about a product: first those that were asked for, then in the order of the table."""
    hidden = attributes.HIDDEN_WORDS
    stated = {key: value for key, value in product.attributes.items() if not hidden.intersection(key.split("_"))}
    asked = {word for feature in criteria.features for words in feature.split_wordings() for word in words}
    asked |= {word for term in criteria.terms for word in words_of(term)}
    limited = {bound.name for bound in criteria.bounds}

    def sort_key(key: str) -> tuple[bool, bool, int]:
        words = set(words_of(f"{key.replace('_', ' ')} {stated[key]}"))
        return key not in limited, not asked & words, FACT_KEYS.index(key) if key in FACT_KEYS else len(FACT_KEYS)

    facts = []
    for key in sorted(stated, key=sort_key):
        if attributes.QUALIFIER_KEYS.get(key) not in stated:
            row = BY_KEY.get(key)
            qualifiers = (stated.get(qualifier) for qualifier in (row.qualifiers if row else ()))
            facts.append(describe_attribute(key, stated[key], next(filter(None, qualifiers), None)))
    facts = list(dict.fromkeys(fact for fact in facts if fact and len(fact) <= MAX_FACT_LENGTH))[:MAX_FACTS]
    sentence = (product.description or "").strip().split(". ")[0].rstrip(".")
    if len(sentence) > MAX_FACT_LENGTH:
        sentence = f"{sentence[: MAX_FACT_LENGTH - 1].rstrip()}…"
    return facts or list(filter(None, [sentence]))


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


def to_product_criteria(criteria: Criteria, noun_text: str | None, names: VocabularyIndex) -> ProductCriteria:
    """Convert criteria to those of the HTTP API, where a price in another than the market's currency is a feature."""
    features = describe_features(criteria, names)
    price_range = None
    if criteria.currency not in {None, names.currency}:
        features.append(describe_price_limits(criteria))
    elif criteria.price_min or criteria.price_max:
        low, high = (None if limit is None else float(limit) for limit in (criteria.price_min, criteria.price_max))
        price_range = PriceRange(min=low, max=high)
    if criteria.sort_order in SORT_WORDS:
        features.append(SORT_WORDS[criteria.sort_order])
    # Only wishes that are read as wishes in any sentence can be sent back by a client.
    wish_words = WISH_WORDS | attributes.PREFERENCES.keys()
    features += [wish for wish in criteria.preferences if wish_words.issuperset(words_of(wish))]
    return ProductCriteria(
        category=_truncate(noun_text or " or ".join(criteria.categories)),
        price_range=price_range,
        features=[text for feature in features if (text := _truncate(feature))],
        brand=_truncate(names.spell_brands(criteria.brands)),
        marketplace=criteria.marketplace,
    )


def describe_features(criteria: Criteria, names: VocabularyIndex) -> list[str]:
    """Describe every hard criterion but the brand, the category, the price and the shop."""
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


MAX_SENTENCES = 3
SHARED_BEST_MARK = "compared has"
NOTABLE_SAVING = Decimal("0.03")


class ProductComparison:
    """Compares the recommended products `shown` with each other and with all products `fitting` the criteria."""

    def __init__(self, fitting: Sequence[Product], shown: Sequence[Product], criteria: Criteria) -> None:
        limited = {bound.name for bound in criteria.bounds}
        self._compared = sorted(COMPARED, key=lambda compared: compared[0].key not in limited)
        self._fitting = fitting
        self._shown = shown
        self._values = {
            row.key: [value for product in fitting if (value := get_number(product, row.key)) is not None]
            for row, _ in COMPARED
        }

    def list_pros(self, product: Product) -> list[str]:
        """Return one to three advantages over the other products that fit."""
        pros = [text for row, comparison in self._compared if (text := self._describe_pro(product, row, comparison))]
        pros.sort(key=lambda text: SHARED_BEST_MARK in text)
        only = len(self._fitting) == 1
        return [*self._list_price_pros(product), *pros][:MAX_SENTENCES] or [
            "The only product in the catalogue that fits" if only else "Meets every criterion that was understood"
        ]

    def list_cons(self, product: Product) -> list[str]:
        """Return one to three drawbacks beside the other recommended products and all that fit."""
        cons = self._list_price_cons(product)
        cons += [text for row, comparison in self._compared if (text := self._describe_con(product, row, comparison))]
        cons = cons[: MAX_SENTENCES - 1]
        cons += describe_price_age(product)
        if not cons and product.rating is None:
            cons.append("No customer rating is known")
        return cons or ["No drawback stands out in its data"]

    def _describe_pro(self, product: Product, row: Attribute, comparison: Comparison) -> str:
        value, values = get_number(product, row.key), self._values[row.key]
        if value is None or len(set(values)) <= 1 or value != (max if row.direction > 0 else min)(values):
            return ""
        fact = comparison.fact.format(format_number(value)) or describe_attribute(row.key, value)
        if values.count(value) == 1:
            return f"{comparison.advantage} of the {len(values)} compared ({fact})"
        return f"{fact}: none of the {len(values)} {SHARED_BEST_MARK} {'more' if row.direction > 0 else 'less'}"

    def _describe_con(self, product: Product, row: Attribute, comparison: Comparison) -> str:
        value = get_number(product, row.key)
        others = [(number, other) for other in self._shown if (number := get_number(other, row.key)) is not None]
        if value is None or not others:
            return ""
        best, other = max(others, key=lambda pair: pair[0] * row.direction)
        lead = (best - value) * row.direction
        return f"{comparison.drawback.format(format_number(lead))} than {other.title}" if lead > 0 else ""

    def _get_comparable_prices(self, product: Product) -> list[Decimal]:
        return [p.price for p in self._fitting if p.price is not None and p.currency == product.currency]

    def _list_price_pros(self, product: Product) -> list[str]:
        prices = self._get_comparable_prices(product)
        if product.price is None or product.currency is None or len(set(prices)) <= 1:
            return []
        if product.price == min(prices):
            return [f"Lowest price of the {len(prices)} compared"]
        average = sum(prices, Decimal(0)) / len(prices)
        step = Decimal(1) if find_currency(product.currency).whole_amounts else Decimal("0.01")
        saving = (average - product.price).quantize(step)
        if saving < average * NOTABLE_SAVING:
            return []
        return [f"{format_money(saving, product.currency)} below the average of the {len(prices)} compared"]

    def _list_price_cons(self, product: Product) -> list[str]:
        lowest = min(self._get_comparable_prices(product), default=product.price)
        if product.price is None or product.currency is None or lowest is None or product.price <= lowest:
            return []
        return [f"{format_money(product.price - lowest, product.currency)} more than the cheapest that fits"]


def describe_price_age(product: Product) -> list[str]:
    """Return the drawback that a price is old; it holds whether or not a product meets the criteria."""
    return [f"Price is indicative, as of {product.price_as_of:%B %Y}"] if product.price_as_of is not None else []
