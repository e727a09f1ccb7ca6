"""Criteria in words: for the summary, and for the client, which sends them back with its next question.

What `described` writes the grammar reads back into the same criteria.
"""

from decimal import Decimal

from shopassist.assistant.facts import number
from shopassist.assistant.feature_words import PREFERENCES
from shopassist.assistant.lexicon import WISHES
from shopassist.assistant.money import money
from shopassist.assistant.names import Names
from shopassist.models.criteria import Bound, Criteria, Order
from shopassist.models.query import PriceRange, ProductCriteria
from shopassist.models.words import words_of

BOUND_UNITS = {
    "ram_gb": "GB RAM", "storage_gb": "GB storage", "screen_inches": "inches", "battery_mah": "mAh",
    "capacity_mah": "mAh", "refresh_rate_hz": "Hz", "main_camera_mp": "MP camera", "front_camera_mp": "MP front camera",
    "output_watts": "W", "charging_watts": "W", "power_watts": "W", "battery_hours": "hours",
    "capacity_litres": "litres", "weight_g": "grams", "rating": "stars", "rating_count": "reviews",
}  # fmt: skip
RATINGS = frozenset({"rating", "rating_count"})
ORDERS = {Order.CHEAPEST: "cheapest", Order.DEAREST: "most expensive", Order.BEST_RATED: "highly rated"}


def bound_words(bound: Bound) -> str:
    """A limit as "8 GB RAM or more", "under 200 grams", "between 54.5 and 55.5 inches"."""
    unit = BOUND_UNITS.get(bound.name, bound.name.replace("_", " "))
    low = number(bound.minimum) if bound.minimum is not None else None
    high = number(bound.maximum) if bound.maximum is not None else None
    if low is not None and high is not None:
        return f"between {low} and {high} {unit}"
    if low is not None:
        return f"over {low} {unit}" if bound.exclusive else f"{low} {unit} or more"
    return f"under {high} {unit}" if bound.exclusive else f"{high} {unit} or less"


def price_words(criteria: Criteria) -> str:
    """The price limit as "up to ₹12,000"; empty without one."""
    low, high, currency = criteria.price_min, criteria.price_max, criteria.currency or ""
    if low is not None and high is not None:
        words = "from {} and up to {}" if low > high else "between {} and {}"
        return words.format(money(low, currency), money(high, currency))
    if high is not None:
        return f"up to {money(high, currency)}"
    return f"from {money(low, currency)}" if low is not None else ""


def stated(criteria: Criteria, names: Names) -> list[str]:
    """Every hard criterion but category and price in words."""
    words = [" or ".join(names.spelling.get(brand, brand) for brand in criteria.brands)] if criteria.brands else []
    return words + _features(criteria, names)


def product_noun(criteria: Criteria, said: str | None) -> str:
    """What the products are called in a sentence, in the plural."""
    if criteria.categories:
        return " or ".join(criteria.categories).replace("-", " ")
    return f"products called “{said}”" if said else "products"


def described(criteria: Criteria, said: str | None, names: Names) -> ProductCriteria:
    """The criteria in the shape of the HTTP API. A price in another currency than the market's is a feature."""
    own = criteria.currency in {None, names.currency}
    low, high = criteria.price_min, criteria.price_max
    features = _features(criteria, names)
    if not own:
        features.append(price_words(criteria))
    if criteria.order in ORDERS:
        features.append(ORDERS[criteria.order])
    brand = " or ".join(names.spelling.get(brand, brand) for brand in criteria.brands)
    return ProductCriteria(
        category=_shortened(said or " or ".join(criteria.categories)),
        price_range=PriceRange(min=_float(low), max=_float(high)) if own and (low or high) else None,
        features=[feature for feature in (_shortened(f) for f in [*features, *_readable_wishes(criteria)]) if feature],
        brand=_shortened(brand),
        marketplace=criteria.marketplace,
    )


def _features(criteria: Criteria, names: Names) -> list[str]:
    kind = criteria.kind.name if criteria.kind else None
    words = [" ".join(criteria.terms)] if criteria.terms else []
    words += [bound_words(bound) for bound in criteria.bounds]
    words += [feature.name for feature in criteria.features if feature.name != kind]
    words += [f"without {feature.name}" for feature in criteria.excluded_features]
    words += [f"not {names.spelling.get(brand, brand)}" for brand in criteria.excluded_brands]
    return words + [f"not {category}" for category in criteria.excluded_categories]


def _readable_wishes(criteria: Criteria) -> list[str]:
    """Wishes that are wishes wherever they stand; others had their meaning from the sentence they stood in."""
    return [wish for wish in criteria.wishes if set(words_of(wish)) <= WISHES | PREFERENCES.keys()]


LONGEST = 255


def _shortened(text: str) -> str | None:
    return text[:LONGEST] or None


def _float(value: Decimal | None) -> float | None:
    return float(value) if value is not None else None
