"""From quantities to limits on a product's price and attributes.

A figure without a comparison means "at least" (8 GB RAM, 5000 mAh, 4.5 stars), but for a screen it names a size: half
an inch either way from 20 inches on, 0.15 inches below. A whole number of inches below 20 is how a class is called
("15 inch laptop", "6 inch phone"): up to 0.65 inches more belong to it. A weight is the most that it may weigh.
"Around" is a tenth either way.
"""

from collections.abc import Iterable
from decimal import Decimal

from shopassist.assistant.nouns import attribute_of, capacity_of
from shopassist.assistant.quantities import Quantity
from shopassist.models.criteria import Bound

NEAR = Decimal("0.1")
LARGE_SCREEN = 20
LARGE_TOLERANCE = Decimal("0.5")
SMALL_TOLERANCE = Decimal("0.15")
CLASS_TOLERANCE = Decimal("0.65")

Price = tuple[Decimal | None, Decimal | None, str | None]


def price_of(quantities: Iterable[Quantity], currency: str) -> Price:
    """The lowest and the highest price and their currency; an amount without a mark is in `currency`.

    The last sum that was stated for a side counts.
    """
    low: Decimal | None = None
    high: Decimal | None = None
    stated: str | None = None
    for quantity in quantities:
        if quantity.subject == "price":
            near = _widened(quantity)
            low = near.minimum if near.minimum is not None else low
            high = near.maximum if near.maximum is not None else high
            stated = near.currency or stated
    return low, high, (stated or currency) if low is not None or high is not None else None


def bounds_of(quantities: Iterable[Quantity], kinds: tuple[str, ...]) -> tuple[Bound, ...]:
    """The limits on ratings and attributes that the quantities mean in products of these kinds."""
    bounds: dict[tuple[str, bool], Bound] = {}
    for quantity in quantities:
        name = attribute_of(_subject(quantity, kinds), kinds)
        if name is None:
            continue
        low, high = _limits(quantity)
        known = bounds.get((name, quantity.exclusive), Bound(name=name, exclusive=quantity.exclusive))
        bounds[name, quantity.exclusive] = known.model_copy(
            update={
                "minimum": low if low is not None else known.minimum,
                "maximum": high if high is not None else known.maximum,
            }
        )
    return tuple(bounds.values())


def _subject(quantity: Quantity, kinds: tuple[str, ...]) -> str:
    amount = quantity.minimum if quantity.minimum is not None else quantity.maximum
    if quantity.subject != "gb" or amount is None:
        return quantity.subject
    return capacity_of(int(amount), kinds)


def _limits(quantity: Quantity) -> tuple[Decimal | None, Decimal | None]:
    low = quantity.minimum
    if quantity.exact and quantity.subject == "inches" and low is not None:
        if low >= LARGE_SCREEN:
            return low - LARGE_TOLERANCE, low + LARGE_TOLERANCE
        whole = low == low.to_integral_value()
        return low - SMALL_TOLERANCE, low + (CLASS_TOLERANCE if whole else SMALL_TOLERANCE)
    if quantity.exact and quantity.subject == "grams":
        return None, low
    near = _widened(quantity)
    return near.minimum, near.maximum


def _widened(quantity: Quantity) -> Quantity:
    if not quantity.near or quantity.minimum is None or quantity.maximum is None:
        return quantity
    return Quantity(
        quantity.subject,
        quantity.minimum * (1 - NEAR),
        quantity.maximum * (1 + NEAR),
        currency=quantity.currency,
    )
